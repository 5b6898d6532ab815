"""What the state machine is told: the configuration, checked and in nanoseconds.

Owns: the shape of the rules and the contradictions among them. Must not know: files, environment, units other
than ns.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Final

from msgspec import Struct, field

from coordd.core.lengths import spell_length
from coordd.core.limits import DAY, HOUR, MINUTE, SECOND

LOW: Final = 1
MEDIUM: Final = 2
HIGH: Final = 3
CRITICAL: Final = 4
PRIORITIES: Final = (LOW, MEDIUM, HIGH, CRITICAL)
# What becomes of a request that conflicts with a holder; 0: as its kind or type says. Numbers as in the
# protos.
WAIT: Final = 1
DENY: Final = 2
ESCALATE: Final = 3
# How a fair limit or pool weighs its workers.
EQUAL: Final = "equal"
PROPORTIONAL: Final = "proportional"
DYNAMIC: Final = "dynamic"
# What a pool without free units does with those who want some.
QUEUE: Final = "queue"
DENY_OVERFLOW: Final = "deny"
BORROW: Final = "borrow"
# How X-RateLimit-Reset is to be read.
AUTO: Final = "auto"
EPOCH: Final = "epoch"
DELTA: Final = "delta"


class KindRule(Struct, frozen=True, kw_only=True):
    """A kind of engagement.

    Lease length, rest after a lapse, and how soon an item may be engaged again, in ns.
    """

    ttl_ns: int = 15 * MINUTE
    lock_delay_ns: int = 15 * SECOND
    min_interval_ns: int = 0
    # After an engagement of another kind: its name -> how soon this kind may follow.
    min_interval_after_ns: Mapping[str, int] = {}
    # A request of at least this quality may engage again within min_interval after a SUCCESS. Above 1: never.
    bypass_quality: float = 2.0
    # After a SUCCESS an interval is shortened by quality x this: at 0.5 quality 1 waits half as long.
    quality_discount: float = 0.0
    on_conflict: int = WAIT
    # A waiter that has waited so long is escalated. 0: never by itself.
    escalate_after_ns: int = 0


class TypeRule(Struct, frozen=True, kw_only=True):
    """A type of resource.

    Exclusive by id, and drawing on `pool`, or on the pool that its id names in `pools`.
    """

    ttl_ns: int = 30 * MINUTE
    pool: str = ""
    pools: Mapping[str, str] = {}
    on_conflict: int = WAIT
    escalate_after_ns: int = 0


class LimitRule(Struct, frozen=True, kw_only=True):
    """Rolling windows: length in ns -> permits within any such length. Shortest first."""

    windows: Mapping[int, int]
    is_fair: bool = False
    # EQUAL, PROPORTIONAL or DYNAMIC, where fair.
    share: str = EQUAL
    # Priority -> part of each window that only this class and those above may take.
    headroom: Mapping[int, float] = {}
    # The largest part of each window that is left to what higher classes are forecast to want. 0: none.
    forecast_max: float = 0.0
    # Spread over the window rather than taken as they come.
    is_even: bool = False
    # A permit not used within this is not to be used at all; it stays charged as if used at the last moment.
    use_within_ns: int = 30 * SECOND
    # A booking may be claimed from its time until this much later.
    claim_window_ns: int = 30 * SECOND
    # A refusal by upstream without a time: the gate closes for backoff x 2**strikes, at most backoff_max. A
    # strike is forgiven by each success and by each backoff_decay that passes.
    backoff_ns: int = SECOND
    backoff_max_ns: int = 15 * MINUTE
    backoff_decay_ns: int = MINUTE
    # A reset that upstream puts further ahead is clamped to this, and told.
    reset_max_ns: int = DAY
    # AUTO, EPOCH or DELTA: how upstream's X-RateLimit-Reset is meant.
    reset_form: str = AUTO
    # The window that headers without one speak of. 0: the one that fits.
    header_window_ns: int = 0
    # Strikes at which an alert is raised.
    alert_after: int = 3


class PoolRule(Struct, frozen=True, kw_only=True):
    """A pool of units: `capacity` units that are held and come back, or a `limit` that refills by window."""

    capacity: int = 0
    limit: LimitRule | None = None
    is_fair: bool = False
    share: str = EQUAL
    # Priority -> part of the capacity that only this class and those above may take.
    headroom: Mapping[int, float] = {}
    # Bounds within which the capacity adapts to how its workers fare. 0: it does not.
    capacity_min: int = 0
    capacity_max: int = 0
    # Work that takes longer says that the pool is too large. 0: only failures do.
    latency_target_ns: int = 0
    # A decrease leaves so many parts of 1.
    decrease: float = 0.9
    # Below its configured capacity the pool recovers by one unit in so long.
    recovery_ns: int = MINUTE
    overflow: str = QUEUE
    borrow_from: str = ""


class QuotaRule(Struct, frozen=True, kw_only=True):
    """How much there may be at once. 0: as much as there is room for."""

    leases: int = 0
    waiters: int = 0
    sessions: int = 0


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
    # Weights of workers, and of classes of workers, by name; 1 where none is said.
    worker_weights: Mapping[str, float] = {}
    worker_class_weights: Mapping[str, float] = {}
    # A worker without a session shares for so long after it last asked.
    active_window_ns: int = 5 * MINUTE
    # In a fair queue a worker that waits and was given nothing for so long goes first, whatever its share.
    fair_bound_ns: int = 2 * MINUTE
    # A bundle that has waited so long has what it needs set aside.
    bundle_patience_ns: int = 10 * SECOND
    # Whether a wait that would last longer than its own timeout is refused at once.
    is_shedding: bool = False
    # How far back a bundle's condition may look.
    engagement_memory_ns: int = 0
    escalation_timeout_ns: int = MINUTE
    # A Decision, by number as in the protos: what holds where nobody decides. WAIT.
    escalation_default: int = 4
    preempt_grace_ns: int = 5 * SECOND
    session_ttl_ns: int = 30 * SECOND
    quotas: QuotaRule = QuotaRule()


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
