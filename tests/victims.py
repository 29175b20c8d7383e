"""Processes that tests interrupt: a tiny training that stops at a known batch until it is told twice to go on."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
EPOCHS, PAUSE = 6, (2, 1)  # epoch and batch, from 0

# `read` ends with a line on standard input; a signal's handler runs in between, and does not end it.
TRAINING = f"""
import sys
from pathlib import Path
import pytorch_lightning as pl
from pipeline import paths
from pipeline.data.store import Store
from pipeline.runtime.exit_status import exit_status
from pipeline.training.run import Run, publish, train
from tests.tiny import CPU, settings

class Pause(pl.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if (trainer.current_epoch, index) == {PAUSE}:
            for _ in range(2):
                print("ready", flush=True)
                sys.stdin.readline()

def main():
    store = Store.open(Path("prepared/fashion_mnist"))
    run = Run("smoke", "baseline", "3", 0, settings(train={{"epochs": {EPOCHS}}}), store, CPU)
    train(run, [Pause()])
    publish(run, paths.seed("smoke", "baseline", 0))

sys.exit(exit_status(main))
"""


# A stage that does not train.
IDLE = """
import sys, time
from pipeline.runtime.exit_status import exit_status

def main():
    print("ready", flush=True)
    time.sleep(100)

sys.exit(exit_status(main))
"""


@contextmanager
def process(*command: str, cwd: Path | None = None, **more: str) -> Iterator[subprocess.Popen[str]]:
    """`python -c` with `command`, and pipes; killed at the end, with all that it started."""
    victim = subprocess.Popen(
        [sys.executable, "-c", *command],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | more,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heeding_ctrl_c,
    )
    try:
        yield victim
    finally:
        with suppress(ProcessLookupError):
            os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()


def heeding_ctrl_c() -> None:
    """Before the start: where pytest runs in the background of a script, SIGINT is ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(stream: IO[str] | None, pattern: str) -> None:
    """Read lines until one matches."""
    assert stream is not None
    seen = []
    for line in stream:
        seen.append(line)
        if re.search(pattern, line):
            return
    raise AssertionError(f"no line matches {pattern!r}: {seen}")


def go_on(victim: subprocess.Popen[str]) -> None:
    assert victim.stdin is not None
    victim.stdin.write("\n")
    victim.stdin.flush()
