"""Ctrl-C, SIGTERM and the death of the `dvc` or torchrun that runs a stage: each ends it at a moment that loses little.

While a net trains, that moment is the next batch; everywhere else it is now. Further signals change nothing.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHELLS = ("sh", "bash", "dash", "zsh", "fish")
LOOK_SECONDS = 0.2

_received: signal.Signals | None = None
_at_check = False


class Stopped(SystemExit):
    """Somebody wants the stage to end. Notes say where it will go on."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(128 + received)
        self.signal = received


@contextmanager
def listening(with_parent: bool = False) -> Iterator[None]:
    """In this block a signal raises Stopped. One that was ignored from the start (nohup) stays so.

    The death of the `dvc` or torchrun that runs a stage counts as one; `with_parent`: that of any parent does.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, _receive)
    alone = os.getsid(0) == os.getpid()  # a session of its own was meant to outlive DVC
    of_dvc = "DVC_STAGE" in os.environ and not alone
    if with_parent or of_dvc or "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's have no session of their own
        child = _child_of_dvc()
        threading.Thread(target=_terminate_once_left, args=(child, child.ppid()), daemon=True).start()
    try:
        yield
    finally:
        if _received is None:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def only_at_check() -> Iterator[None]:
    """In this block a signal waits for the next `check`, or for the end."""
    global _at_check
    _at_check = True
    try:
        yield
    finally:
        _at_check = False
        check()


@contextmanager
def blocked() -> Iterator[None]:
    """In this block the system holds back signals, also from each process started in it, until that calls `unblock`.

    A process that is interrupted while it starts would end with a traceback of its own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Let signals through, in a process that was started in `blocked` and has set what they do."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def received() -> int:
    """The number of the signal that has come, 0 if none has."""
    return _received or 0


def check() -> None:
    if _received is not None:
        raise Stopped(_received)


def _receive(number: int, frame: object) -> None:
    global _received
    if _received is None:
        _received = signal.Signals(number)
        if not _at_check:
            check()


def _child_of_dvc() -> psutil.Process:
    """This process, or the shell that DVC may have put between itself and the stage, and which outlives it."""
    this = psutil.Process()
    parent = this.parent()
    return parent if parent is not None and parent.name() in SHELLS else this


def _terminate_once_left(child: psutil.Process, parent: int) -> None:
    while child.is_running() and child.ppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
