"""`alexnet sync`: fills the MLflow store beside the work, in a process of its own, one at a time, for a bounded time.

A sending may be killed at any instant: the next one goes on from what the store holds.
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline import paths
from pipeline.errors import UserError
from pipeline.runtime import launcher
from pipeline.runtime.files import write_json
from pipeline.tracking import running

COMMAND = [sys.executable, "-m", "pipeline", "sync", "--background"]
FOLLOW = [sys.executable, "-m", "pipeline", "sync", "--live"]
LOOK_S, LAST_LOOKS_S = 8.0, 60.0  # between two looks at running trainings; for these to end once their stage has
NICENESS = 10
BACKGROUND_S, FOREGROUND_S = 60, 300  # the most that a sending takes, waiting for another one included
SENT = ("runs/*/train/*/*/*", "runs/*/evaluation/*/*", "runs/*/tune/*/*", "reports/*/figures/*")


@contextmanager
def live() -> Iterator[None]:
    """Have one process of low priority send the epochs of trainings while the block runs, and end by itself."""
    if find_spec("mlflow") is None or launcher.rank() != 0:
        yield
        return
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "start_new_session": True}
    sender = subprocess.Popen(FOLLOW, env=_environment(), **options)
    try:
        yield
    finally:
        sender.stdin.close()  # type: ignore[union-attr]


def follow() -> None:
    """Send the epochs of running trainings until standard input ends, as it does with the stage, however that ends.

    A store that fails is one warning; the next look tries again. Nothing is lost: the files have it all.
    """
    follower, warned, deadline = None, False, None
    while deadline is None or (follower and follower.follows and time.monotonic() < deadline):
        if deadline is None:
            if select.select([sys.stdin], [], [], LOOK_S)[0]:
                deadline = time.monotonic() + LAST_LOOKS_S
        else:
            time.sleep(1)
        if follower is None and not any(map(running.is_trained, running.files())):
            continue
        from pipeline.tracking.store import Follower

        os.nice(NICENESS - os.nice(0))  # not before: importing MLflow would take a minute beside busy cores
        try:
            with _at_most(BACKGROUND_S), _sending().acquire(blocking=False):
                follower = follower or Follower()
                follower.look()
        except Timeout:  # another process sends, and may log models for a minute
            continue
        except UserError as error:
            if not warned:
                print(f"warning: {error}", file=sys.stderr)
            follower, warned = None, True


def start() -> None:
    """Send in the background, so that no stage waits for the store; without MLflow, elsewhere and later."""
    if find_spec("mlflow") is None:
        print("MLflow is not installed here: `alexnet sync` sends the runs from where it is, once they are there")
        return
    child = subprocess.Popen(
        COMMAND, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    if Path.cwd() != paths.root():  # a temporary folder of `dvc exp run`: its files go away with it
        child.wait()


def finish() -> None:
    """Send as `start` does, and wait for the end. What fails, or takes too long, is a warning."""
    subprocess.run(COMMAND, env=_environment(), check=False)


def _environment() -> dict[str, str]:
    """Return the environment without torchrun's mark, by which a sending would end with the training."""
    return {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"}


def run(background: bool) -> None:
    """Send what the store lacks. In the background, do not where another sending waits: it will see the same files."""
    try:
        with _at_most(BACKGROUND_S if background else FOREGROUND_S), _turn(background):
            print(paths.without_passwords(f"MLflow: {_send()} runs written to {paths.mlflow_store()}"))
    except Timeout:
        return
    except UserError as error:
        if not background:
            raise
        print(f"warning: {error}", file=sys.stderr)


@contextmanager
def _turn(background: bool) -> Iterator[None]:
    """Have one process send, and one at most wait in the background; for a further one, raise Timeout."""
    paths.state().mkdir(parents=True, exist_ok=True)
    sending = _sending()
    with FileLock(paths.state() / "mlflow-waiting.lock").acquire(blocking=not background):
        sending.acquire()
    try:
        yield
    finally:
        sending.release()


def _sending() -> FileLock:
    """Return the lock of the one process that sends."""
    return FileLock(paths.state() / "mlflow-sending.lock")


def _send() -> int:
    """Return the number of runs written. MLflow, which takes seconds to import, is used only if a file has changed."""
    remembered = paths.state() / "mlflow-sent.json"
    files = _stamps([Path(__file__).with_name("store.py"), *(path for name in SENT for path in Path().glob(name))])
    with suppress(OSError, ValueError):
        if json.loads(remembered.read_text()) == [files, _store_stamp()]:
            return 0
    from pipeline.tracking import store

    written = store.sync()
    if stamp := _store_stamp():
        write_json(remembered, [files, stamp])
    return written


def _store_stamp() -> dict[str, list[int]]:
    """Return the stamp of a SQLite file. It is empty for a server, which would have to be asked."""
    file = paths.sqlite_file(paths.mlflow_store())
    return _stamps([file]) if file else {}


def _stamps(files: Iterable[Path]) -> dict[str, list[int]]:
    """Return size, time of change and inode, by name."""
    stamps = {}
    for path in sorted(files):
        with suppress(FileNotFoundError):
            stat = path.stat()
            stamps[str(path)] = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    return stamps


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End the process after so many seconds. A library that hangs might catch an exception, or never get it."""

    def give_up() -> None:
        problem = f"{paths.mlflow_store()}: sending to the MLflow store took longer than {seconds} s"
        remedy = "`alexnet sync` sends the rest from the files"
        print(paths.without_passwords(f"warning: {problem}; {remedy}"), file=sys.stderr)
        sys.stderr.flush()
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
