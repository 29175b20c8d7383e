"""Mistakes a user can mend end as one message and exit status 2, never as a traceback."""

import errno
import sys
from collections.abc import Callable

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


class UserError(Exception):
    """Names the file or key, what was found, what is accepted and what to do."""


def exit_status(main: Callable[[], None]) -> int:
    """Run `main`; 0 if it returned, 2 (and the message on standard error) if the user has something to mend."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        print(f"error: {error.filename}: {error.strerror}; {REFUSALS[error.errno]}", file=sys.stderr)
        return 2
    return 0
