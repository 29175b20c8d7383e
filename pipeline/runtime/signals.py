"""Ctrl-C, SIGTERM, or the death of the `dvc` or torchrun that runs a stage ends the stage without losing much.

While a net trains, the stage ends before the next batch; everywhere else it ends at once. Further signals change
nothing.
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
    """Raised where somebody wants the stage to end. Its notes say where the work will go on."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(128 + received)
        self.signal = received


@contextmanager
def listening(with_parent: bool = False) -> Iterator[None]:
    """In this block a signal raises Stopped. A signal that was ignored from the start (nohup) stays ignored.

    The death of the `dvc` or torchrun that runs a stage counts as a signal. `with_parent`: so does that of any parent.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, _receive)
    alone = os.getsid(0) == os.getpid()  # a session of its own was meant to outlive DVC
    of_dvc = "DVC_STAGE" in os.environ and not alone
    if with_parent or of_dvc or "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's have no session of their own
        this = psutil.Process()
        parent = this.parent()
        # DVC may have put a shell between itself and the stage. The shell would outlive DVC.
        child = parent if parent is not None and parent.name() in SHELLS else this
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
    """In this block the system holds back signals, and so does each process that is started in it, until `unblock`.

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


def leave_to_parent(*_: object) -> None:
    """Leave Ctrl-C to the parent, which ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def received() -> int:
    """Return the number of the signal that has come, 0 if none has."""
    return _received or 0


def check() -> None:
    """Raise Stopped if a signal has come."""
    if _received is not None:
        raise Stopped(_received)


def _receive(number: int, frame: object) -> None:
    global _received
    if _received is None:
        _received = signal.Signals(number)
        if not _at_check:
            check()


def _terminate_once_left(child: psutil.Process, parent: int) -> None:
    while child.is_running() and child.ppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
