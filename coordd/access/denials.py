"""Calls that are refused for who makes them.

    Denial
     +- NotIdentified   nobody knows who it is
     +- NotPermitted    it is known, and may not

Rule: a denial tells what was asked for and what it takes, and nothing of what the daemon holds.
"""


class Denial(Exception):
    """A call that is refused for who makes it.

    Args: reason: UPPER_SNAKE, stable, for programs. message: one sentence, for people. metadata: every
    dynamic part of the message, by name.
    """

    def __init__(self, reason: str, message: str, /, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata


class NotIdentified(Denial):
    """Nobody knows who calls."""


class NotPermitted(Denial):
    """Whoever calls is known, and may not."""
