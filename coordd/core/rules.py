"""What the state machine is told: the configuration, checked and in nanoseconds.

Owns: the shape of the rules and the contradictions among them. Must not know: files, environment, units other
than ns.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Final

from msgspec import Struct, field

from coordd.core.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND

LOW: Final = 1
MEDIUM: Final = 2
HIGH: Final = 3
CRITICAL: Final = 4
PRIORITIES: Final = (LOW, MEDIUM, HIGH, CRITICAL)
_UNITS: Final = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": MILLISECOND}


class KindRule(Struct, frozen=True, kw_only=True):
    """A kind of engagement.

    Lease length, rest after a lapse, and how soon an item may be engaged again, in ns.
    """

    ttl_ns: int = 15 * MINUTE
    lock_delay_ns: int = 15 * SECOND
    min_interval_ns: int = 0
    # A request of at least this quality may engage again within min_interval after a SUCCESS. Above 1: never.
    bypass_quality: float = 2.0


class TypeRule(Struct, frozen=True, kw_only=True):
    """A type of resource.

    Exclusive by id, and drawing on `pool`, or on the pool that its id names in `pools`.
    """

    ttl_ns: int = 30 * MINUTE
    pool: str = ""
    pools: Mapping[str, str] = {}


class LimitRule(Struct, frozen=True, kw_only=True):
    """Rolling windows: length in ns -> permits within any such length. Shortest first."""

    windows: Mapping[int, int]
    is_fair: bool = False
    # A permit not used within this is not to be used at all; it stays charged as if used at the last moment.
    use_within_ns: int = 30 * SECOND
    # A booking may be claimed from its time until this much later.
    claim_window_ns: int = 30 * SECOND


class PoolRule(Struct, frozen=True, kw_only=True):
    """A pool of units: `capacity` units that are held and come back, or a `limit` that refills by window."""

    capacity: int = 0
    limit: LimitRule | None = None


class Rules(Struct, frozen=True, kw_only=True):
    """Everything the state machine is told.

    Boosts: a waiter's key is its enqueue time minus its class's boost minus quality x quality_boost, smaller
    first; the difference of two boosts is hence the time after which the lower class goes before a fresh one
    of the higher.
    """

    kinds: Mapping[str, KindRule]
    types: Mapping[str, TypeRule]
    pools: Mapping[str, PoolRule]
    limits: Mapping[str, LimitRule]
    is_exclusive_by_kind: bool = False
    boost_ns: Mapping[int, int] = field(
        default_factory=lambda: {LOW: 0, MEDIUM: MINUTE, HIGH: 2 * MINUTE, CRITICAL: 365 * 24 * HOUR}
    )
    quality_boost_ns: int = 30 * SECOND
    resume_grace_ns: int = 30 * SECOND
    recovery_grace_ns: int = 30 * SECOND
    request_memory_ns: int = 10 * MINUTE
    schedule_horizon_ns: int = 24 * HOUR


def contradiction(windows: Mapping[int, int]) -> str | None:
    """Say how an endpoint's windows contradict each other, or None if they don't.

    A longer window must allow at least as much as a shorter one (else the shorter can never be used up and is
    a mistake), and at most as much as its length's worth of shorter ones (else the longer can never bind).
    """
    for (short_ns, short), (long_ns, long) in combinations(sorted(windows.items()), 2):
        said_long = f"{long} in {spell_length(long_ns)}"
        said_short = f"{short} in {spell_length(short_ns)}"
        if long < short:
            return f"{said_long} is less than {said_short}"
        if long > short * -(-long_ns // short_ns):
            return f"{said_long} can't be reached with {said_short}"
    return None


def spell_length(length_ns: int) -> str:
    """Write a length of time for people, as the configuration has it: `1h30m`, `15m`, `4s`, `250ms`."""
    parts, rest_ns = [], length_ns
    for unit, unit_ns in _UNITS.items():
        count, rest_ns = divmod(rest_ns, unit_ns)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or f"{rest_ns}ns"
