"""Those who want more units than an adaptive pool has at present, though it may grow to have them.

Owns: who they are, by how much each wants. Rules: they wait apart, so that they hold nobody up: whoever wants
less keeps the pool in use, and only a pool in use grows. Once the pool has so many units in all, they go to
its queue, each to the place of its rank.
Must not know: how a pool grows.
"""

from collections.abc import Callable

from sortedcontainers import SortedList

from coordd.core.queues import Rank


class Oversized:
    """An `Order` of those who wait for a pool to grow. `is_in_reach`: whether to look at so many units."""

    __slots__ = ("_by_units", "_is_in_reach")

    def __init__(self, is_in_reach: Callable[[int], bool]) -> None:
        self._is_in_reach = is_in_reach
        self._by_units: dict[int, SortedList[Rank]] = {}

    def add(self, rank: Rank, units: int) -> None:
        """See `Order.add`."""
        self._by_units.setdefault(units, SortedList()).add(rank)

    def remove(self, rank: Rank, units: int, now: int) -> None:
        """See `Order.remove`."""
        ranks = self._by_units[units]
        ranks.remove(rank)
        if not ranks:
            del self._by_units[units]

    def heads(self, now: int) -> list[Rank]:
        """See `Order.heads`: everybody whose units are in reach. Cost: O(those, and the sizes wanted)."""
        return sorted(
            rank for units, ranks in self._by_units.items() if self._is_in_reach(units) for rank in ranks
        )

    def classes_ahead(self, rank: Rank, now: int) -> list[int]:
        """See `Order.classes_ahead`: nobody holds anybody up."""
        return []

    def before(self, rank: Rank, now: int) -> int:
        """See `Order.before`: once all are in reach."""
        return sum(ranks.bisect_left(rank) for ranks in self._by_units.values())

    def changes_at(self, now: int) -> int:
        """See `Order.changes_at`."""
        return 0
