"""How many units those before a rank want, however many there are.

Owns: ranks with their units, kept apart by size; so a sum up to a rank is one search for each size that
anybody wants, and sizes are few where ranks are many.
Must not know: what is wanted.
"""

from collections.abc import Iterator

from sortedcontainers import SortedDict, SortedList

from coordd.core.limits import UNITS_MAX

# As in `queues`.
Rank = tuple[int, int, int, str]


class Amounts:
    """Units by rank, each above 0."""

    __slots__ = ("_by_size", "_of")

    def __init__(self) -> None:
        self._of: dict[Rank, int] = {}
        self._by_size: SortedDict[int, SortedList[Rank]] = SortedDict()

    def __len__(self) -> int:
        """Ranks."""
        return len(self._of)

    def __iter__(self) -> Iterator[Rank]:
        """Every rank."""
        return iter(self._of)

    def get(self, rank: Rank) -> int:
        """Return the units of a rank, 0 if it has none."""
        return self._of.get(rank, 0)

    def add(self, rank: Rank, units: int) -> None:
        """Take in a rank that is not here. Cost: O(log n)."""
        self._of[rank] = units
        ranks = self._by_size.get(units)
        if ranks is None:
            ranks = self._by_size[units] = SortedList()
        ranks.add(rank)

    def remove(self, rank: Rank) -> None:
        """Let a rank go, if it is here. Cost: O(log n)."""
        units = self._of.pop(rank, 0)
        if units:
            ranks = self._by_size[units]
            ranks.remove(rank)
            if not ranks:
                del self._by_size[units]

    def is_before(self, rank: Rank) -> bool:
        """Whether any is before `rank`. Cost: O(sizes)."""
        return any(ranks[0] < rank for ranks in self._by_size.values())

    def before(self, rank: Rank, size_max: int = UNITS_MAX) -> int:
        """Return the units of those before `rank` that want at most `size_max`. Cost: O(sizes x log n)."""
        sizes = self._by_size.irange(maximum=size_max)
        return sum(size * self._by_size[size].bisect_left(rank) for size in sizes)
