"""How the capacity of a pool adapts to how its workers fare.

Owns: the capacity of every pool that has bounds, in thousandths of a unit, and when it was last found too
large. Rules: additive increase, multiplicative decrease, which of all linear rules are the ones that settle.
Work that says its resource is overloaded, or took longer than the pool's target, leaves the capacity x
`decrease`, and a unit less at least. Work that went well while at least half of the pool was in use adds
units / capacity, so one unit each time the whole capacity has come round. What was begun before the last
decrease says nothing of what is left since, and is ignored, so that one overload decreases once. Below the
configured capacity one unit comes back in each `recovery`, whatever happens. An operator's capacity is
pinned: it does not adapt.
Must not know: who waits, and what a pool's units are.
Source: Chiu and Jain 1989 (the rule); RFC 5681 section 3.1 (the increase); RFC 6582 (once a window);
AIMDLimit of Netflix's concurrency-limits (only while in use, and latency as a sign).
"""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from coordd.core.ledger import Ledger
from coordd.core.outcomes import CapacityChanged
from coordd.core.queues import QueueKey
from coordd.core.records import Capacity, Table
from coordd.core.rules import PoolRule

# How the work under a reservation went; numbers as in the protos.
SUCCESS: Final = 1
OVERLOADED: Final = 2
_MILLI: Final = 1_000
_PPM: Final = 1_000_000


class Sized(Protocol):
    """What has a capacity: a pool. `capacity` in whole units."""

    name: str
    rule: PoolRule
    key: QueueKey
    larger_key: QueueKey
    capacity: int
    held: int


class Adaptive:
    """What one pool has learnt. `record` None: nothing, its capacity is as configured, or pinned."""

    __slots__ = ("is_pinned", "pool", "record", "scheduled")

    def __init__(self, pool: Sized) -> None:
        self.pool = pool
        self.record: Capacity | None = None
        self.is_pinned = False
        self.scheduled = 0

    def clamp(self, capacity_milli: int) -> int:
        """Return the nearest capacity within the pool's bounds, in thousandths."""
        rule = self.pool.rule
        return max(rule.capacity_min * _MILLI, min(capacity_milli, rule.capacity_max * _MILLI))


class Capacities:
    """Every pool that adapts."""

    __slots__ = ("_changed", "_ledger", "_of")

    def __init__(self, adaptives: Iterable[Adaptive | None], ledger: Ledger) -> None:
        self._ledger = ledger
        self._changed = ledger.changes.of[Table.CAPACITIES]
        self._of = {adaptive.pool.name: adaptive for adaptive in adaptives if adaptive is not None}

    def records(self) -> Iterator[Capacity]:
        """Yield what has been learnt."""
        return (adaptive.record for adaptive in self._of.values() if adaptive.record is not None)

    def learn(
        self, adaptive: Adaptive, *, granted_at: int, units: int, result: int, latency_ns: int, now: int
    ) -> None:
        """Take in how the work under a reservation went, which still holds its `units`.

        Args: granted_at: when it began. result: 0 not said, SUCCESS, OVERLOADED. latency_ns: 0 not said.
        """
        record, pool = adaptive.record, adaptive.pool
        if adaptive.is_pinned or (record is not None and granted_at < record.decreased_at):
            return
        if result == OVERLOADED or 0 < pool.rule.latency_target_ns < latency_ns:
            self._decrease(adaptive, now)
        elif result == SUCCESS and 2 * pool.held >= pool.capacity:
            self._increase(adaptive, units, now)

    def due(self, adaptive: Adaptive, now: int) -> None:
        """Give a pool back what it has recovered by now, one unit in each `recovery`."""
        record, rule = adaptive.record, adaptive.pool.rule
        if record is None:
            return
        steps = (now - record.at) // rule.recovery_ns
        record.at += steps * rule.recovery_ns
        self._move(adaptive, record, min(rule.capacity * _MILLI, record.capacity_milli + steps * _MILLI))

    def pin(self, adaptive: Adaptive) -> None:
        """Forget what was learnt: an operator says what the capacity is."""
        adaptive.is_pinned = True
        self._ledger.deadlines.cancel(adaptive)
        if adaptive.record is not None:
            adaptive.record = None
            self._changed[adaptive.pool.name] = None

    def unpin(self, adaptive: Adaptive, now: int) -> None:
        """Let a pool adapt again, from the capacity it has, brought within its bounds."""
        if adaptive.is_pinned:
            adaptive.is_pinned = False
            record = Capacity(pool=adaptive.pool.name, capacity_milli=0, at=now)
            self._move(adaptive, record, adaptive.pool.capacity * _MILLI)

    def load(self, record: Capacity) -> None:
        """Take in what was stored, within the bounds of today; nothing if the pool adapts no longer."""
        adaptive = self._of.get(record.pool)
        if adaptive is None or adaptive.is_pinned:
            self._changed[record.pool] = None
        else:
            adaptive.record = record
            clamped = adaptive.clamp(record.capacity_milli)
            if clamped != record.capacity_milli:
                record.capacity_milli = clamped
                self._changed[record.pool] = record
            adaptive.pool.capacity = clamped // _MILLI
            self._schedule(adaptive, record)

    # --------------------------------------------------------------------------------------------------------

    def _decrease(self, adaptive: Adaptive, now: int) -> None:
        record = self._record(adaptive)
        record.at = record.decreased_at = now
        decrease_ppm = round(adaptive.pool.rule.decrease * _PPM)
        left = record.capacity_milli * decrease_ppm // _PPM
        self._move(adaptive, record, min(left, record.capacity_milli - _MILLI))

    def _increase(self, adaptive: Adaptive, units: int, now: int) -> None:
        record = self._record(adaptive)
        # Rounded up, so that a pool of more than a thousand units grows at all.
        gained = -(-units * _MILLI * _MILLI // record.capacity_milli)
        if adaptive.clamp(record.capacity_milli + gained) != record.capacity_milli:
            self._move(adaptive, record, record.capacity_milli + gained)

    def _record(self, adaptive: Adaptive) -> Capacity:
        pool = adaptive.pool
        return adaptive.record or Capacity(pool=pool.name, capacity_milli=pool.capacity * _MILLI, at=0)

    def _move(self, adaptive: Adaptive, record: Capacity, capacity_milli: int) -> None:
        pool = adaptive.pool
        adaptive.record = self._changed[pool.name] = record
        record.capacity_milli = adaptive.clamp(capacity_milli)
        self._schedule(adaptive, record)
        before, pool.capacity = pool.capacity, record.capacity_milli // _MILLI
        if before != pool.capacity:
            self._ledger.notices.append(CapacityChanged(pool=pool.name, before=before, after=pool.capacity))
            self._ledger.freed.extend((pool.larger_key, pool.key))

    def _schedule(self, adaptive: Adaptive, record: Capacity) -> None:
        rule = adaptive.pool.rule
        if record.capacity_milli < rule.capacity * _MILLI:
            self._ledger.deadlines.not_after(adaptive, record.at + rule.recovery_ns)
        else:
            self._ledger.deadlines.cancel(adaptive)
