"""Ends a mistake of the user, or a wish to stop, as one message and an exit status instead of a traceback."""

import errno
import sys
from collections.abc import Callable

from pipeline.errors import UserError
from pipeline.runtime.signals import Stopped, listening

# What the file system refuses, as opposed to what the code got wrong.
REFUSALS = {
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.EROFS: "use a file system that can be written",
    errno.ENOSPC: "make room on that file system",
    errno.EDQUOT: "make room on that file system",
    errno.ENOTDIR: "move the file that stands where a folder has to be",
    errno.EEXIST: "move the file that stands where a folder has to be",
}


def exit_status(main: Callable[[], None]) -> int:
    """Run `main`. Return 0 if it returned, 2 (and print the message) if the user has something to correct.

    After SIGINT or SIGTERM the status is the shell's for that: 130 or 143. Stages import what is heavy in their `main`,
    so that signals are handled from the start.
    """
    try:
        with listening():
            main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        message = "; ".join([f"{error.filename}: {error.strerror}", *notes(error), REFUSALS[error.errno]])
        print(f"error: {message}", file=sys.stderr)
        return 2
    except Stopped as stop:
        message = "; ".join([f"stopped by {stop.signal.name}", *notes(stop)])
        print(f"{message}; `dvc repro` goes on from what is there", file=sys.stderr)
        return 128 + stop.signal
    return 0


def notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])
