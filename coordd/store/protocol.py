"""What the engine asks of durable state, whoever keeps it.

Owns: the protocol and its failures. Must not know: SQL, files, which decisions the records stand for.
"""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from coordd.core.records import Batch, Engagement, Lock, Reservation, Row, Table


class StoreError(Exception):
    """The store cannot be used; says which and why, in one line."""


class Unusable(StoreError):
    """The store can't be opened.

    Owned by another daemon, corrupt, newer, not ours, or out of reach. Nothing was touched.
    """


class CommitFailed(StoreError):
    """A batch may or may not be durable. Nothing of it may be acknowledged; the daemon must stop."""


class Unreadable(StoreError):
    """A question about what is in the store can't be answered; decisions don't ask any."""


class CopyRefused(StoreError):
    """No copy can be taken now. `reason`: UPPER_SNAKE, stable, for programs."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Opened(Struct, frozen=True, kw_only=True):
    """Everything live, as rows in the order of the tables' columns, and the last batch's marks (0: new)."""

    sequence: int
    instant: int
    last_id: int
    tables: Mapping[Table, Sequence[Row]]


class EngagementCount(Struct, frozen=True, kw_only=True):
    """How many engagements of one kind ended in one way."""

    kind: str
    outcome: int
    count: int


class Copy(Protocol):
    """A copy of everything, a file's worth of bytes, with the last batch's marks."""

    size: int
    sequence: int
    instant: int
    last_id: int

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes, from the first on."""
        ...


class Store(Protocol):
    """Durable state: the current records, and the history."""

    async def open(self, history_ns: int) -> Opened:
        """Take ownership; read every live record, and the last `history_ns` of the history.

        Raises: Unusable, with nothing touched.
        """
        ...

    async def recent(self, history_ns: int) -> Mapping[Table, Sequence[Row]]:
        """Read all charges, and the last `history_ns` of the history, as of the last batch.

        Raises: Unreadable.
        """
        ...

    async def commit(self, batch: Batch) -> None:
        """Make a batch durable, all of it or nothing.

        Applying the same batch twice is harmless. Raises: CommitFailed.
        """
        ...

    async def latest_engagement(
        self, item: str, since: int, kinds: Collection[str], outcomes: Collection[int]
    ) -> Engagement | None:
        """Return the latest engagement of `item` at or after `since` (ns); empty `kinds`: any.

        This and the questions below raise Unreadable.
        """
        ...

    async def count_engagements(self, since: int, worker: str) -> Sequence[EngagementCount]:
        """Count the engagements at or after `since` (ns) by kind and outcome; empty `worker`: everybody's."""
        ...

    async def locks_page(self, after: int, size: int, worker: str) -> Sequence[Lock]:
        """Return up to `size` live locks with a token above `after`, in token order.

        Empty `worker`: everybody's.
        """
        ...

    async def reservations_page(self, after: int, size: int, worker: str, type: str) -> Sequence[Reservation]:
        """Return up to `size` live reservations with an id above `after`, in order.

        Empty `worker`, `type`: all.
        """
        ...

    def copied(self) -> AbstractAsyncContextManager["Copy"]:
        """Take a copy of all that is committed, as of one instant; it is gone when the context ends.

        Commits go on meanwhile. Raises: CopyRefused, also while another is taken.
        """
        ...

    async def close(self) -> None:
        """Give up ownership. Everything committed is on disk already.

        Raises: CommitFailed if the disk fails at what is left to do; nothing is lost by it.
        """
        ...
