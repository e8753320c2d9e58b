"""The exceptions a user is meant to read."""


class UserError(Exception):
    """Bad input. The message is one line: what, where, what to do. The command line exits with status 2."""


class StoppedByCanary(Exception):
    """A run was stopped because its canaries fired; what is good is kept. The command line exits with status 3."""
