"""Locks between processes, which end with the process that holds them, however it ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


class Busy(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, work: str, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`. Where another process holds it, name it once and wait, or raise Busy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise Busy from None
        print(f"{work}: waiting for process {path.read_text() or '?'}, which is at it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        with suppress(OSError):  # the number only informs
            path.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()
