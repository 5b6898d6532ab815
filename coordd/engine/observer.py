"""What the engine shows to whoever measures it. Where nobody does, it costs an attribute test.

Rules: what is shown is durable, times are ns of the engine's clock, and an observer neither raises nor takes
its time: it is called between two decisions. Must not know: what is made of it.
"""

from typing import Protocol

from msgspec import Struct

from coordd.core.commands import WaitableCommand
from coordd.core.machine import Command
from coordd.core.outcomes import Granted, Notice, Outcome, Place, Refused
from coordd.core.waiters import Waiter


class Commit(Struct, frozen=True, kw_only=True, gc=False):
    """One batch, `sequence`, became durable: so many commands and changed records."""

    sequence: int
    commands: int
    records: int
    began_at: int
    ended_at: int


class Observer(Protocol):
    """Sees every decision that is answered, every wait, and what time brings."""

    def answered(self, command: Command, outcome: Outcome, *, asked_at: int, at: int, batch: int) -> None:
        """See an outcome as its caller is about to be told it.

        Args: batch: the commit that the answer has waited for; 0: none.
        """
        ...

    def queued(self, command: WaitableCommand, place: Place) -> None:
        """See where somebody stands who begins to wait, or comes back."""
        ...

    def served(
        self, waiter: Waiter, final: Granted | Refused, *, first: Place | None, at: int, batch: int
    ) -> None:
        """See the last word to somebody who has waited; `first`: the place that it began with."""
        ...

    def happened(self, notice: Notice, at: int) -> None:
        """See what has happened, at `at`, to waiters, leases, gates and sessions."""
        ...


class CommitObserver(Protocol):
    """Sees every commit."""

    def committed(self, commit: Commit) -> None:
        """See one that has ended well."""
        ...
