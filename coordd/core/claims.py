"""What a component says of a command that wants something: what blocks it, and in which queue it would wait.

Owns: the vocabulary between the components and the waits. Must not know: any component, or how waits are
kept.
"""

from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from coordd.core.outcomes import Grant, Reason, Refused
from coordd.core.queues import QueueKey, Rank

CommandT_contra = TypeVar("CommandT_contra", contravariant=True)


class Blocked(Struct, frozen=True, kw_only=True):
    """What stands in the way. `key`: the queue to wait in, (): waiting is no use. `retry_at` 0: unknown.

    `frees_at`: when it frees by the mere passing of time for whoever is first in the queue, 0: it doesn't.
    `parts`: of a bundle, what stands in the way of each of its claims, in their order.
    """

    reason: Reason
    subject: str
    key: QueueKey = ()
    retry_at: int = 0
    frees_at: int = 0
    holder: str = ""
    window_ns: int = 0
    parts: "tuple[Blocked | None, ...]" = ()

    def refused(self, position: int) -> Refused:
        """Return the refusal that says so."""
        return Refused(
            reason=self.reason,
            subject=self.subject,
            retry_at=self.retry_at,
            holder=self.holder,
            window_ns=self.window_ns,
            position=position,
        )


class Arrivals(Protocol, Generic[CommandT_contra]):
    """Something that learns from who comes. It is not asked for a decision."""

    def arrived(self, command: CommandT_contra, now: int) -> None:
        """Take in that a command is granted at once, or begins to wait: a new one, no repeat of it."""
        ...


class Estimates(Protocol, Generic[CommandT_contra]):
    """Something that learns how good its estimates were. It is not asked for a decision."""

    def served(self, command: CommandT_contra, promised_at: int, now: int) -> None:
        """Take in that a waiter which was told, when it began to wait, that it would be served then, is."""
        ...


class Component(Protocol, Generic[CommandT_contra]):
    """Something that grants.

    `check` and `take` are apart so that several claims can be checked before any is taken.
    """

    def check(self, command: CommandT_contra, rank: Rank, now: int) -> Blocked | None:
        """Return what blocks a command of this rank, or None. Changes nothing.

        Raises: InvalidArgument, OutOfRange: it can never be granted.
        """
        ...

    def validate(self, command: CommandT_contra) -> None:
        """Check that a command can ever be granted. Cost: O(1), unlike `check`.

        Raises: InvalidArgument, OutOfRange.
        """
        ...

    def take(self, command: CommandT_contra, now: int) -> Grant:
        """Grant what `check` has found free."""
        ...

    def keys(self, command: CommandT_contra) -> tuple[QueueKey, ...]:
        """Return every queue the command may have to wait in."""
        ...

    def units(self, command: CommandT_contra, key: QueueKey) -> int:
        """Return how much the command wants of `key`, one of its `keys`."""
        ...

    def estimate(self, command: CommandT_contra, rank: Rank, blocked: Blocked, now: int) -> int | None:
        """Return how long (ns) a waiter of this rank will wait, or None if nothing was observed yet."""
        ...

    def least_wait(self, command: CommandT_contra, rank: Rank, blocked: Blocked, now: int) -> int | None:
        """Return how long (ns) a waiter of this rank will wait for all one knows well enough to refuse by.

        None: too little was seen.
        """
        ...

    def is_for(self, command: CommandT_contra, grant: object) -> bool:
        """Whether `grant` is what `command` asks for: the same request, sent again."""
        ...
