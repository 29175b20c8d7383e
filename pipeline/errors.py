"""The one exception for what a user can mend."""


class UserError(Exception):
    """Names the file or key, what was found, what is accepted and what to do."""
