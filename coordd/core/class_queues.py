"""Who waits for a limit or a pool whose classes, or whose workers, are not served by rank alone.

Owns: the waiters of one queue by class. Rules: the class with the smallest rank in it goes first (that is
aging); within a class the smallest rank does, or, where workers share, whom `FairClass` says.
Must not know: what is waited for, or whether it can be had.
"""

from sortedcontainers import SortedList

from coordd.core.queues import Rank


class RankClass:
    """The waiters of one class, served by rank."""

    __slots__ = ("ranks",)

    def __init__(self) -> None:
        self.ranks: SortedList[Rank] = SortedList()

    def add(self, rank: Rank) -> None:
        """Take a waiter in."""
        self.ranks.add(rank)

    def remove(self, rank: Rank) -> None:
        """Let it go."""
        self.ranks.remove(rank)

    def first(self, now: int) -> Rank:
        """Return who goes first."""
        first: Rank = self.ranks[0]
        return first

    def is_ahead(self, rank: Rank, now: int) -> bool:
        """Whether anybody of this class goes before `rank`, of this class too: a waiter or a newcomer."""
        return self.first(now) < rank

    def before(self, rank: Rank, now: int) -> int:
        """Return how many of this class are served before `rank`: exact, or an estimate where they share."""
        return self.ranks.bisect_left(rank)


class ClassQueue:
    """The waiters of one queue, by class. `has_headroom`: a class may pass one that must leave it room."""

    __slots__ = ("_classes", "_has_headroom")

    def __init__(self, *, has_headroom: bool) -> None:
        self._has_headroom = has_headroom
        self._classes: dict[int, RankClass] = {}

    def add(self, rank: Rank, units: int) -> None:
        """See `Order.add`."""
        class_ = self._classes.get(rank[2])
        if class_ is None:
            class_ = self._classes[rank[2]] = self._new_class()
        class_.add(rank)

    def remove(self, rank: Rank, units: int, now: int) -> None:
        """See `Order.remove`."""
        class_ = self._classes[rank[2]]
        class_.remove(rank)
        if not class_.ranks:
            del self._classes[rank[2]]

    def heads(self, now: int) -> list[Rank]:
        """See `Order.heads`: with headroom the first of each class, in order."""
        classes = sorted(self._classes.values(), key=lambda class_: class_.ranks[0])
        return [class_.first(now) for class_ in (classes if self._has_headroom else classes[:1])]

    def classes_ahead(self, rank: Rank, now: int) -> list[int]:
        """See `Order.classes_ahead`."""
        own = self._classes.get(rank[2])
        lead = min(own.ranks[0], rank) if own is not None else rank
        ahead = [priority for priority, class_ in self._classes.items() if class_.ranks[0] < lead]
        if own is not None and own.is_ahead(rank, now):
            ahead.append(rank[2])
        return sorted(ahead)

    def before(self, rank: Rank, now: int) -> int:
        """See `Order.before`."""
        own = self._classes.get(rank[2])
        others = (class_.ranks.bisect_left(rank) for class_ in self._classes.values() if class_ is not own)
        return sum(others) + (own.before(rank, now) if own is not None else 0)

    def changes_at(self, now: int) -> int:
        """See `Order.changes_at`."""
        return 0

    def _new_class(self) -> RankClass:
        return RankClass()
