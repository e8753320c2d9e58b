"""The one exception a user is meant to read."""


class UserError(Exception):
    """Bad input. The message is one line: what, where, what to do. The command line exits with status 2."""
