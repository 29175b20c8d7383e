"""Mistakes a user can mend end as one message and exit status 2, never as a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Names the file or key, what was found, what is accepted and what to do."""


def exit_status(main: Callable[[], None]) -> int:
    """Run `main`; 0 if it returned, 2 (and the message on standard error) if the user has something to mend."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
