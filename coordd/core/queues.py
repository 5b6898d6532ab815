"""Who waits for what, in which order.

Owns: one ordered queue for each thing that blocks somebody. A waiter's rank is (static key, id), smaller
first, fixed when it began to wait; so order never changes while waiting, and a sorted list gives head,
removal and *position* in O(log n). Where classes or workers share, an `Order` of its own says who is first.
And what is set aside for those who wait elsewhere: whoever has a later rank must leave it.
Must not know: what is waited for, or whether it can be had.
"""

from typing import Final, Protocol

from sortedcontainers import SortedList

from coordd.core.amounts import Amounts
from coordd.core.limits import UNITS_MAX

# (static key, id, class, worker): the first two decide, since ids differ; the others say who it is, for
# orders.
Rank = tuple[int, int, int, str]
# The sort of a thing and its names: ("lock", item), ("resource", type, id), ("pool", name), ("larger", pool),
# ("limit", name).
QueueKey = tuple[str, ...]


# Static keys below 0 are of those who were put first, by decision: more of them than ids can ever be given.
PUT_FIRST: Final = -(1 << 62)
_NONE: Final = Amounts()


class Order(Protocol):
    """Who is first of those who wait for one thing, where that is not a matter of rank alone."""

    def add(self, rank: Rank, units: int) -> None:
        """Take a waiter in that wants `units`."""
        ...

    def remove(self, rank: Rank, units: int, now: int) -> None:
        """Let it go."""
        ...

    def heads(self, now: int) -> list[Rank]:
        """Return who is next, and after it whoever may be served though the next one can't."""
        ...

    def classes_ahead(self, rank: Rank, now: int) -> list[int]:
        """Return the classes in which somebody goes before `rank`, a waiter or a newcomer."""
        ...

    def before(self, rank: Rank, now: int) -> int:
        """Return how many are served before `rank`, a waiter or a newcomer: an estimate."""
        ...

    def changes_at(self, now: int) -> int:
        """Return when somebody else may be next by the mere passing of time, who may be served; 0: never."""
        ...


class Queues:
    """The queues by key. `units[key]` is what its waiters want in all. An empty queue does not exist.

    `orders`: of the keys that have one; it knows the same waiters. `aside`: units set aside for those who
    wait elsewhere; mostly empty.
    """

    __slots__ = ("_ranks", "_several", "aside", "orders", "units")

    def __init__(self) -> None:
        self._ranks: dict[QueueKey, SortedList[Rank]] = {}
        self.orders: dict[QueueKey, Order] = {}
        # How much more than one unit those want who don't want just one: mostly nobody.
        self._several: dict[QueueKey, Amounts] = {}
        self.units: dict[QueueKey, int] = {}
        self.aside: dict[QueueKey, Amounts] = {}

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
        if units > 1:
            if key not in self._several:
                self._several[key] = Amounts()
            self._several[key].add(rank, units - 1)
        if key in self.orders:
            self.orders[key].add(rank, units)

    def remove(self, key: QueueKey, rank: Rank, units: int, now: int) -> None:
        """Let it wait no longer."""
        ranks = self._ranks[key]
        ranks.remove(rank)
        self.units[key] -= units
        if units > 1:
            self._several[key].remove(rank)
        if key in self.orders:
            self.orders[key].remove(rank, units, now)
        if not ranks:
            del self._ranks[key], self.units[key]
            self._several.pop(key, None)

    def heads(self, key: QueueKey, now: int) -> list[Rank]:
        """Return who is next, and after it whoever may be served though the next one can't; [] if nobody."""
        ranks = self._ranks.get(key)
        if ranks is None:
            return []
        return self.orders[key].heads(now) if key in self.orders else [ranks[0]]

    def first_wants(self, key: QueueKey, now: int) -> dict[int, int]:
        """Return how many units the first of each class wants, of those `heads` returns."""
        several = self._several.get(key, _NONE)
        return {rank[2]: several.get(rank) + 1 for rank in self.heads(key, now)}

    def changes_at(self, key: QueueKey, now: int) -> int:
        """Return when somebody else may be next by the mere passing of time, who may be served; 0: never."""
        return self.orders[key].changes_at(now) if key in self.orders else 0

    def is_ahead(self, key: QueueKey, rank: Rank, now: int) -> bool:
        """Whether anybody waits for `key` who goes before `rank`."""
        ranks = self._ranks.get(key)
        if ranks is None:
            return False
        return bool(self.orders[key].classes_ahead(rank, now)) if key in self.orders else ranks[0] < rank

    def is_claimed(self, key: QueueKey, rank: Rank, now: int) -> bool:
        """Whether anybody before `rank` waits for `key`, which is exclusive, or has it set aside."""
        aside = self.aside.get(key)
        return (aside is not None and aside.is_before(rank)) or self.is_ahead(key, rank, now)

    def set_aside(self, key: QueueKey, rank: Rank, units: int) -> None:
        """Keep `units` of `key` from everybody after `rank`, who waits elsewhere."""
        if key not in self.aside:
            self.aside[key] = Amounts()
        self.aside[key].add(rank, units)

    def free(self, key: QueueKey, rank: Rank) -> None:
        """Keep nothing for `rank` any longer, if anything was."""
        aside = self.aside.get(key)
        if aside is not None:
            aside.remove(rank)
            if not aside:
                del self.aside[key]

    def units_aside(self, key: QueueKey, rank: Rank, units_max: int = UNITS_MAX) -> int:
        """Return the units that `rank` must leave to those before it who wait elsewhere.

        But for those who want more than `units_max`, who could not have them now. Cost: as `Amounts.before`.
        """
        aside = self.aside.get(key)
        return aside.before(rank, units_max) if aside is not None else 0

    def classes_ahead(self, key: QueueKey, rank: Rank, now: int) -> list[int]:
        """Return the classes of those who go before `rank`. `key` has an order."""
        return self.orders[key].classes_ahead(rank, now)

    def position(self, key: QueueKey, rank: Rank, now: int) -> int:
        """Return the place of `rank`, from 1: of a waiter, or that a newcomer would take.

        Where workers share it is an estimate.
        """
        ranks = self._ranks.get(key)
        if ranks is None:
            return 1
        return (self.orders[key].before(rank, now) if key in self.orders else ranks.bisect_left(rank)) + 1

    def units_ahead(self, key: QueueKey, rank: Rank, now: int) -> int:
        """Return the units wanted by those before `rank`; where workers share, an estimate: the mean of each.

        Cost: O(log n), once more for each number of units that anybody wants.
        """
        if key in self.orders and key in self._ranks:
            before = self.orders[key].before(rank, now)
            return -(-before * self.units[key] // len(self._ranks[key])) + self.units_aside(key, rank)
        return self.units_before(key, rank)

    def units_before(self, key: QueueKey, rank: Rank) -> int:
        """Return the units wanted by those of smaller rank, whoever is served first.

        Cost: O(log n), once more for each number of units that anybody wants.
        """
        aside = self.units_aside(key, rank)
        ranks = self._ranks.get(key)
        if ranks is None:
            return aside
        return ranks.bisect_left(rank) + self._several.get(key, _NONE).before(rank) + aside
