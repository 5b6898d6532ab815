"""A pool of units: how many there are, and how many are held.

Owns: the arithmetic of one pool. Must not know: reservations one by one, or who waits.
"""

from collections.abc import Sequence

from coordd.core.capacity import Adaptive
from coordd.core.headroom import headroom_of
from coordd.core.held_units import HeldUnits
from coordd.core.queues import QueueKey
from coordd.core.records import Reservation
from coordd.core.rules import PRIORITIES, PoolRule
from coordd.core.shares import Shares
from coordd.core.window_blocks import WindowBlocks
from coordd.core.windows import Windows


class Pool:
    """A pool of units: `held` of `capacity`, or `windows` that refill.

    `held_by_class`: index = priority. `headroom` None: no class must leave anything to others. `shares`
    None: workers do not share it; else `units` has what each holds. `blocks` None: it has no windows.
    `adaptive` None: the capacity is as the configuration, or an operator, says. `key`: the queue of those who
    wait for units; `larger_key`: of those who want more than an adaptive pool has at present.
    """

    __slots__ = (
        "adaptive",
        "blocks",
        "capacity",
        "headroom",
        "held",
        "held_by_class",
        "key",
        "larger_key",
        "name",
        "rule",
        "shares",
        "units",
        "windows",
    )

    def __init__(self, name: str, rule: PoolRule, windows: Windows | None) -> None:
        self.name = name
        self.rule = rule
        self.capacity = rule.capacity
        self.held = 0
        self.held_by_class = [0] * (len(PRIORITIES) + 1)
        self.windows = windows
        self.headroom = headroom_of(rule if rule.limit is None else rule.limit)
        self.key: QueueKey = ("pool", name)
        self.larger_key: QueueKey = ("larger", name)
        self.units = HeldUnits(lambda: self.capacity)
        self.shares: Shares | None = None
        self.blocks: WindowBlocks | None = None
        self.adaptive = Adaptive(self) if rule.capacity_max else None

    def units_max(self) -> int:
        """Return the most that can ever be held at once."""
        if self.windows is not None:
            return self.windows.smallest()
        is_fixed = self.adaptive is None or self.adaptive.is_pinned
        return self.capacity if is_fixed else self.rule.capacity_max

    def units_max_of(self, priority: int) -> int:
        """Return the most that a class can ever hold at once."""
        if self.headroom is None:
            return self.units_max()
        if self.windows is not None:
            return self.headroom.largest(priority, self.windows)
        units_max = self.units_max()
        return units_max - self.headroom.floor(priority, units_max)

    def units_of(self, priority: int) -> int:
        """Return the most that a class can hold at once as the capacity is now."""
        if self.headroom is None:
            return self.capacity
        return self.capacity - self.headroom.floor(priority, self.capacity)

    def is_in_reach(self, units: int) -> bool:
        """Whether so many are had in all now, or can never be: then who wants them is to be looked at."""
        return units <= self.capacity or units > self.units_max()

    def hold(self, reservation: Reservation, units: int) -> None:
        """Count units as held; below 0: as given back."""
        self.held += units
        self.held_by_class[reservation.priority] += units
        if self.shares is not None:
            self.units.hold(reservation.worker, units, reservation.granted_at)

    def held_above(self, priority: int) -> int:
        """Return what classes above `priority` hold."""
        return sum(self.held_by_class[priority + 1 :])

    def free_for(self, priority: int) -> int:
        """Return how many units a class may take now: what is free, less what classes above are still due."""
        free = self.capacity - self.held
        if self.headroom is None:
            return free
        floor = self.headroom.floor(priority, self.capacity)
        return free - max(0, floor - self.held_above(priority))

    def may_pass(self, units: int, ahead: Sequence[int], priority: int) -> bool:
        """Whether a class takes no more than what all the classes `ahead` must leave to it anyway."""
        headroom = self.headroom
        return headroom is not None and all(
            class_ < priority and self.held_above(class_) + units <= headroom.floor(class_, self.capacity)
            for class_ in ahead
        )
