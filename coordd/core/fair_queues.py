"""Who goes first where workers share.

Owns: the order among the waiters of one class of a fair limit or pool. Rules: the starved go first, the
longest so first; then the worker with the smallest level; among equals the smallest rank. A worker's first
waiter by rank stands for it.
Must not know: how levels come about, and whether anything is free.
Cost: a level that changes is put in its place in O(log n), when somebody asks who is first.
"""

from itertools import islice
from typing import Final

from sortedcontainers import SortedList

from coordd.core.class_queues import ClassQueue, RankClass
from coordd.core.queues import Rank
from coordd.core.shares import Shares

# (0, since, 0, rank) of the starved, (1, dominant share, sum of shares, rank) of the others.
_Key = tuple[int, int, int, Rank]
# How many of those ahead a place is reckoned from exactly; each beyond counts as one.
_RECKONED_MAX: Final = 64


class FairClass(RankClass):
    """The waiters of one class, by worker."""

    __slots__ = ("_by_level", "_by_wait", "_entries", "_of", "_shares")

    def __init__(self, shares: Shares) -> None:
        super().__init__()
        self._shares = shares
        self._of: dict[str, SortedList[Rank]] = {}
        # Worker -> its entries in the two orders below.
        self._entries: dict[str, tuple[tuple[int, int, Rank], tuple[int, Rank]]] = {}
        self._by_level: SortedList[tuple[int, int, Rank]] = SortedList()
        self._by_wait: SortedList[tuple[int, Rank]] = SortedList()

    def add(self, rank: Rank) -> None:
        """See `RankClass.add`."""
        super().add(rank)
        worker = rank[3]
        self._of.setdefault(worker, SortedList()).add(rank)
        self.place(worker)

    def remove(self, rank: Rank) -> None:
        """See `RankClass.remove`."""
        super().remove(rank)
        worker = rank[3]
        self._of[worker].remove(rank)
        if not self._of[worker]:
            del self._of[worker]
        self.place(worker)

    def place(self, worker: str) -> None:
        """Put a worker in its place, or out if none of its requests wait here."""
        if worker in self._entries:
            by_level, by_wait = self._entries.pop(worker)
            self._by_level.remove(by_level)
            self._by_wait.remove(by_wait)
        if worker in self._of:
            first = self._of[worker][0]
            entries = (*self._shares.level(worker), first), (self._shares.starves_at(first), first)
            self._entries[worker] = entries
            self._by_level.add(entries[0])
            self._by_wait.add(entries[1])

    def first(self, now: int) -> Rank:
        """See `RankClass.first`."""
        starves_at, rank = self._by_wait[0]
        first: Rank = rank if starves_at <= now else self._by_level[0][2]
        return first

    def is_ahead(self, rank: Rank, now: int) -> bool:
        """See `RankClass.is_ahead`."""
        own = self._of.get(rank[3])
        if own is not None and own[0] < rank:
            return True
        return self._key(self.first(now), now) < self._key(rank, now)

    def before(self, rank: Rank, now: int) -> int:
        """See `RankClass.before`: exact for the first, else an estimate.

        Its own earlier ones raise its worker's level; of each worker below that so many are reckoned to go
        before as bring it up to there.
        """
        if not self.is_ahead(rank, now):
            return 0
        own = self._of.get(rank[3])
        earlier = own.bisect_left(rank) if own is not None else 0
        dominant, total = self._shares.level(rank[3])
        dominant += earlier * self._shares.step(rank[3])
        ahead = self._by_level.bisect_left((dominant, total, rank))
        before = earlier + max(0, ahead - _RECKONED_MAX)
        for level, _, first in islice(self._by_level, min(ahead, _RECKONED_MAX)):
            if first[3] != rank[3]:
                catching_up = 1 + (dominant - level) // self._shares.step(first[3])
                before += min(len(self._of[first[3]]), catching_up)
        return max(1, min(before, len(self.ranks) - (rank in self.ranks)))

    def next_starves_at(self, now: int) -> int:
        """Return when the next of those who are not starved yet is; 0: somebody is."""
        starves_at: int = self._by_wait[0][0]
        return starves_at if starves_at > now else 0

    def _key(self, rank: Rank, now: int) -> _Key:
        starves_at = self._shares.starves_at(rank)
        if starves_at <= now:
            return (0, starves_at, 0, rank)
        return (1, *self._shares.level(rank[3]), rank)


class FairQueue(ClassQueue):
    """The waiters of one fair limit or pool, by class, and by worker within each."""

    __slots__ = ("_limits", "_shares")

    def __init__(self, shares: Shares, *, has_headroom: bool) -> None:
        super().__init__(has_headroom=has_headroom)
        self._shares = shares
        # As of when everybody was put in place.
        self._limits = shares.used.limits()

    def add(self, rank: Rank, units: int) -> None:
        """See `Order.add`."""
        self._shares.begin(rank, units)
        super().add(rank, units)

    def remove(self, rank: Rank, units: int, now: int) -> None:
        """See `Order.remove`."""
        self._shares.end(rank, units, now)
        super().remove(rank, units, now)

    def heads(self, now: int) -> list[Rank]:
        """See `Order.heads`."""
        self._settle(now)
        return super().heads(now)

    def classes_ahead(self, rank: Rank, now: int) -> list[int]:
        """See `Order.classes_ahead`."""
        self._settle(now)
        return super().classes_ahead(rank, now)

    def before(self, rank: Rank, now: int) -> int:
        """See `Order.before`."""
        self._settle(now)
        return super().before(rank, now)

    def changes_at(self, now: int) -> int:
        """See `Order.changes_at`."""
        if not self._shares.is_mixed:
            return 0
        starving = (class_.next_starves_at(now) for class_ in self._fair_classes())
        return min((at for at in (self._shares.changes_at(), *starving) if at), default=0)

    def _settle(self, now: int) -> None:
        """Put those in their place whose level has changed since."""
        shares = self._shares
        shares.used.roll(now)
        touched = shares.touched
        if shares.used.limits() != self._limits:
            self._limits = shares.used.limits()
            touched.update(dict.fromkeys(shares.waiting))
        for worker in touched:
            for class_ in self._fair_classes():
                class_.place(worker)
        touched.clear()

    def _fair_classes(self) -> list[FairClass]:
        return list(self._classes.values())  # type: ignore[arg-type]

    def _new_class(self) -> RankClass:
        return FairClass(self._shares)
