"""Processes that tests start and interrupt, among them a tiny training that stops at a known batch until told twice."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

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
from pipeline.training import callbacks
from pipeline.training.run import publish, train
from tests.tiny import a_run

callbacks.CHECKPOINT_SECONDS = float(sys.argv[1]) if sys.argv[1:] else callbacks.CHECKPOINT_SECONDS

class Pause(pl.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if (trainer.current_epoch, index) == {PAUSE}:
            for _ in range(2):
                print("ready", flush=True)
                sys.stdin.readline()

def main():
    run = a_run(Store.open(Path("prepared/fashion_mnist")), train={{"epochs": {EPOCHS}}})
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


def environment(**more: str) -> dict[str, str]:
    """This process's, in which Python finds this repository."""
    return os.environ | {"PYTHONPATH": str(ROOT)} | more


def python(*arguments: str | Path, cwd: Path | None = None, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run `python` with `arguments` to its end, and keep what it prints."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment(**more), capture_output=True, text=True)


def start(*arguments: str | Path, cwd: Path | None = None, **more: str) -> "subprocess.Popen[str]":
    """Start `python` with `arguments` in a session of its own, with pipes."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(**more),
        text=True,
        start_new_session=True,
        preexec_fn=heeding_ctrl_c,
        **pipes,
    )


@contextmanager
def process(*arguments: str | Path, cwd: Path | None = None, **more: str) -> Iterator["subprocess.Popen[str]"]:
    """`python` with `arguments`, and pipes; killed at the end, with all that it started."""
    victim = start(*arguments, cwd=cwd, **more)
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


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait until it holds, which it does soon."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def go_on(victim: "subprocess.Popen[str]") -> None:
    assert victim.stdin is not None
    victim.stdin.write("\n")
    victim.stdin.flush()
