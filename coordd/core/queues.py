"""Who waits for what, in which order.

Owns: one ordered queue for each thing that blocks somebody. A waiter's rank is (static key, id), smaller
first, fixed when it began to wait; so order never changes while waiting, and a sorted list gives head,
removal and *position* in O(log n).
Must not know: what is waited for, or whether it can be had.
"""

from sortedcontainers import SortedList

Rank = tuple[int, int]
# The sort of a thing and its names: ("lock", item), ("resource", type, id), ("pool", name), ("limit", name).
QueueKey = tuple[str, ...]


class Queues:
    """The queues by key. `units[key]` is what its waiters want in all. An empty queue does not exist."""

    __slots__ = ("_ranks", "_several", "units")

    def __init__(self) -> None:
        self._ranks: dict[QueueKey, SortedList[Rank]] = {}
        # How much more than one unit those want who don't want just one: mostly nobody.
        self._several: dict[QueueKey, dict[Rank, int]] = {}
        self.units: dict[QueueKey, int] = {}

    def __contains__(self, key: QueueKey) -> bool:
        """Whether anybody waits for `key`."""
        return key in self._ranks

    def length(self, key: QueueKey) -> int:
        """Waiters for `key`."""
        return len(self._ranks.get(key, ()))

    def add(self, key: QueueKey, rank: Rank, units: int) -> None:
        """Let a waiter of this rank wait for `units` of `key`."""
        ranks = self._ranks.get(key)
        if ranks is None:
            ranks = self._ranks[key] = SortedList()
            self.units[key] = 0
        ranks.add(rank)
        self.units[key] += units
        if units != 1:
            self._several.setdefault(key, {})[rank] = units - 1

    def remove(self, key: QueueKey, rank: Rank, units: int) -> None:
        """Let it wait no longer."""
        ranks = self._ranks[key]
        ranks.remove(rank)
        self.units[key] -= units
        if units != 1:
            del self._several[key][rank]
        if not ranks:
            del self._ranks[key], self.units[key]
            self._several.pop(key, None)

    def head(self, key: QueueKey) -> Rank | None:
        """Return who is next, or None."""
        ranks = self._ranks.get(key)
        return ranks[0] if ranks is not None else None

    def is_ahead(self, key: QueueKey, rank: Rank) -> bool:
        """Whether anybody waits for `key` who goes before `rank`."""
        ranks = self._ranks.get(key)
        return ranks is not None and ranks[0] < rank

    def position(self, key: QueueKey, rank: Rank) -> int:
        """Return the place of `rank`, from 1: of a waiter, or that a newcomer would take."""
        ranks = self._ranks.get(key)
        return 1 if ranks is None else ranks.bisect_left(rank) + 1

    def units_ahead(self, key: QueueKey, rank: Rank) -> int:
        """Return the units wanted by those before `rank`.

        Cost: O(log n), and O(1) for each who wants several.
        """
        ranks = self._ranks.get(key)
        if ranks is None:
            return 0
        several = self._several.get(key, {})
        return ranks.bisect_left(rank) + sum(more for other, more in several.items() if other < rank)
