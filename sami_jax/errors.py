"""The ends of a command that a user is meant to read: each is said in one line, with an exit status of its own."""

BAD_INPUT, STOPPED_BY_CANARIES, LOST, NOT_FINITE = 2, 3, 4, 5
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
FINAL = (BAD_INPUT, STOPPED_BY_CANARIES, NOT_FINITE)  # the same command, started again, ends so again: launchers do not


class UserError(Exception):
    """Bad input. The message is one line: what, where, what to do. Exit status 2."""

    status = BAD_INPUT


class TryAgain(UserError):
    """Network, names, metadata or storage did not answer: nothing that the user must change, and the same command may go well. The
    message is one line. Exit status 75."""

    status = TRY_AGAIN


class StoppedByCanary(Exception):
    """A run was stopped because its canaries fired; what is good is kept. Exit status 3."""


class Alarmed(Exception):
    """A watch over a served model raised an alarm; all that was asked for is done. Exit status 3."""


class NotFinite(Exception):
    """The numbers went wrong: weights, loss or log-likelihoods that are no numbers; what is good is kept. Exit status 5."""


class Stopped(KeyboardInterrupt):
    """Somebody asked the process to end; what is done is kept. Exit status 128 + the signal's number, as shells have it.

    Libraries that catch every Exception let it pass.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
