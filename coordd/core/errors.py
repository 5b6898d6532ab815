"""Broken calls. Raising one of these changes nothing: `Machine.digest()` is the same before and after.

    CommandError
     +- InvalidArgument      the call can never be right
     +- OutOfRange           it could be right, but not with this configuration: it can never be granted
     +- NotFound             names what was never given out
     +- AlreadyExists        its request id belongs to another request
     +- FailedPrecondition   too late, or somebody else's
     +- ResourceExhausted    a bound of the daemon's own is reached; ask again later

Refusals that are normal business (held, too few permits) are outcomes, not errors.
"""


class CommandError(Exception):
    """A call that is refused as broken.

    Args: reason: UPPER_SNAKE, stable, for programs. message: one sentence, for people. metadata: every
    dynamic part of the message, by name.
    """

    def __init__(self, reason: str, message: str, /, **metadata: object) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}


class InvalidArgument(CommandError):
    """The call can never be right."""


class OutOfRange(CommandError):
    """The call asks for more than the configuration can ever give."""


class NotFound(CommandError):
    """The call names something that was never given out."""


class AlreadyExists(CommandError):
    """The call's request id belongs to another request."""


class FailedPrecondition(CommandError):
    """The call comes too late, or from somebody who does not hold what it names."""


class ResourceExhausted(CommandError):
    """A bound of the daemon's own is reached."""
