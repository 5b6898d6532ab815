"""What the daemon answers, as frozen values: durations are float seconds (`_s`), instants aware datetimes.

Instants are on the daemon's clock, which is not yours: to count time left, take a `_s` field and your
monotonic clock.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self


class _WireEnum(enum.IntEnum):
    """Numbered as in coordd.v1. A newer daemon's number reads as UNSPECIFIED instead of failing the reply."""

    @classmethod
    def _missing_(cls, value: object) -> Self:
        return cls(0) if isinstance(value, int) and value else super()._missing_(value)


class Priority(_WireEnum):
    """Who goes first. CRITICAL goes before all others however long they have waited."""

    UNSPECIFIED = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class Outcome(_WireEnum):
    """How an engagement ended. UNKNOWN counts as acted."""

    UNSPECIFIED = 0
    SUCCESS = 1
    FAILURE = 2
    UNKNOWN = 3


class ItemState(_WireEnum):
    """Whether an item may be acted upon."""

    UNSPECIFIED = 0
    FREE = 1
    IN_PROGRESS = 2
    DONE = 3
    UNKNOWN = 4


class UsageResult(_WireEnum):
    """What became of a permit. NOT_SENT gives it back."""

    UNSPECIFIED = 0
    SUCCESS = 1
    FAILURE = 2
    NOT_SENT = 3


class Health(_WireEnum):
    """Below 80 % of every window, up to 95 % of some window, above 95 % of some window."""

    UNSPECIFIED = 0
    HEALTHY = 1
    WARNING = 2
    CRITICAL = 3


class RefusalReason(_WireEnum):
    """What kind of thing stands in the way. The comments in common.proto say what each means."""

    UNSPECIFIED = 0
    HELD = 1
    LOCK_DELAY = 2
    RECENTLY_ENGAGED = 3
    UNITS_TAKEN = 4
    WINDOW_FULL = 5
    QUEUED_AHEAD = 6
    BOOKING_EARLY = 7
    WAIT_TIMEOUT = 8
    SUPERSEDED = 9
    GATE = 10
    WOULD_TIME_OUT = 11
    ESCALATION_DENIED = 12
    HEADROOM = 13
    PACED = 14
    SESSION_CLOSED = 15


class OnConflict(_WireEnum):
    """What becomes of a request that conflicts with a holder; UNSPECIFIED: as configured."""

    UNSPECIFIED = 0
    WAIT = 1
    DENY = 2
    ESCALATE = 3


class Decision(_WireEnum):
    """What a coordination worker decides; UNSPECIFIED: nothing yet."""

    UNSPECIFIED = 0
    GRANT = 1
    DENY = 2
    PREEMPT = 3
    WAIT = 4


class RevocationReason(_WireEnum):
    """Why a lease is lost: a conflict was decided against it, an operator took it, or it ran out."""

    UNSPECIFIED = 0
    PREEMPTED = 1
    FORCED = 2
    EXPIRED = 3


# ---- refusals and waits


@dataclass(frozen=True, slots=True)
class Refusal:
    """What stands in the way, and when to ask again.

    Attributes:
        reason: the kind of obstacle.
        subject: the item, `type/resource_id`, pool or endpoint that is in the way.
        retry_after_s: earliest time from now at which the same request can succeed; None: unknown.
        until: the same as an instant; for HELD the end of the holder's lease.
        holder: for HELD the holder, for RECENTLY_ENGAGED the worker who acted; else empty.
        window_s: for WINDOW_FULL the length of the window that frees last; else None.
        queue_position: the place a wait would have taken, from 1; 0: a wait would not help.
    """

    reason: RefusalReason
    subject: str = ""
    retry_after_s: float | None = None
    until: datetime | None = None
    holder: str = ""
    window_s: float | None = None
    queue_position: int = 0


@dataclass(frozen=True, slots=True)
class Queued:
    """Where a wait stands. `position` 1 is next; `estimated_wait_s` None: no hold times observed yet."""

    position: int
    estimated_wait_s: float | None
    blocked_by: Refusal | None
    times_out_in_s: float


# ---- locks


@dataclass(frozen=True, slots=True)
class Lock:
    """A held lock. Hand `fencing_token` to whatever the lock protects: a larger one is a later grant."""

    item: str
    kind: str
    worker: str
    fencing_token: int
    granted_at: datetime
    expires_at: datetime
    expires_in_s: float


@dataclass(frozen=True, slots=True)
class Engagement:
    """One entry of the history; `at` is when the lock was released or ran out."""

    item: str
    kind: str
    worker: str
    outcome: Outcome
    at: datetime
    fencing_token: int


@dataclass(frozen=True, slots=True)
class ItemStatus:
    """What is known of an item. `last_engagement` is the latest that counts; `delayed_until`: it rests."""

    state: ItemState
    lock: Lock | None
    last_engagement: Engagement | None
    delayed_until: datetime | None
    waiters: int


@dataclass(frozen=True, slots=True)
class KindStats:
    """Counts of one kind of engagement."""

    total: int
    successful: int
    failed: int
    unknown: int


@dataclass(frozen=True, slots=True)
class EngagementStats:
    """What was done. `by_kind` has every configured kind; `success_rate` is 0..1, and 0 when nothing was."""

    total: int
    successful: int
    failed: int
    unknown: int
    by_kind: Mapping[str, KindStats]
    success_rate: float


# ---- reservations


@dataclass(frozen=True, slots=True)
class Reservation:
    """A live reservation. `resource_id` is empty for units only, `pool` is empty where no units are taken."""

    reservation_id: int
    type: str
    resource_id: str
    pool: str
    units: int
    worker: str
    granted_at: datetime
    expires_at: datetime
    expires_in_s: float


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether it would be granted now; if not, the place and the length of a wait (None: unknown)."""

    available: bool
    queue_position: int
    estimated_wait_s: float | None
    blocked_by: Refusal | None
    free_units: int
    capacity: int


# ---- permits


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to make `permits` calls, until `use_by` and not later."""

    permit_id: int
    endpoint: str
    worker: str
    permits: int
    granted_at: datetime
    use_by: datetime
    use_within_s: float


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was taken together, each sort in the order of its claims.

    Attributes:
        expires_in_s: time left of the first lease that ends, when it was sent; None: it has no lease.
        lease_ids: of what can be renewed, locks by fencing token.
    """

    bundle_id: int
    worker: str
    granted_at: datetime
    locks: tuple[Lock, ...]
    reservations: tuple[Reservation, ...]
    permits: tuple[Permit, ...]
    expires_in_s: float | None
    lease_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """One rolling window. By `resets_at` everything counted now has left it."""

    name: str
    window_s: float
    limit: int
    used: int
    remaining: int
    resets_at: datetime
    resets_in_s: float


@dataclass(frozen=True, slots=True)
class RemainingCapacity:
    """What is left of an endpoint; `remaining` is the least of all windows, which come shortest first."""

    windows: tuple[Window, ...]
    remaining: int


@dataclass(frozen=True, slots=True)
class Booking:
    """A booked time. Claim it from `execute_at` to `claim_until`, or it lapses."""

    booking_id: int
    execute_at: datetime
    estimated_delay_s: float
    claim_until: datetime
    permits: int


@dataclass(frozen=True, slots=True)
class WindowAllocation:
    """A worker's part of one window.

    Attributes:
        allocated: what the worker gets if it asks for all it can.
        own: its own part by weight; 0 where nothing is shared.
        lent: what of its own part it is not expected to want, and others may use.
        borrowed: what it has used beyond its own part.
    """

    name: str
    window_s: float
    allocated: int
    used: int
    remaining: int
    own: int = 0
    lent: int = 0
    borrowed: int = 0


@dataclass(frozen=True, slots=True)
class WorkerAllocation:
    """A worker's part of an endpoint, shortest window first."""

    windows: tuple[WindowAllocation, ...]
    active_workers: int
    weight: float = 1.0
    efficiency: float = 1.0
    demand_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """One of the workers that share an endpoint, with its part of each window, shortest first.

    Attributes:
        weight: in the sharing.
        efficiency: share of its calls that succeeded of late, 0..1.
        demand_per_s: calls a second it is expected to want.
        queued_permits: permits that it waits for now.
    """

    worker: str
    windows: tuple[WindowAllocation, ...]
    weight: float
    efficiency: float
    demand_per_s: float
    queued_permits: int


class GateState(_WireEnum):
    """Whether an endpoint may be called at all."""

    UNSPECIFIED = 0
    OPEN = 1
    CLOSED = 2
    PROBING = 3


@dataclass(frozen=True, slots=True)
class Gate:
    """An endpoint's gate, which closes for the whole fleet when upstream refuses a call.

    `opens_in_s`: from when the answer was made until the next call may be made; None: it is open. `strikes`:
    refusals that stand behind the length of the pause.
    """

    state: GateState
    opens_at: datetime | None
    opens_in_s: float | None
    strikes: int


@dataclass(frozen=True, slots=True)
class LearnedLimit:
    """A window's limit as upstream tells it. A lower one is in force, a higher one a suggestion."""

    window_s: float
    limit: int
    configured: int
    in_force: bool


@dataclass(frozen=True, slots=True)
class ClassForecast:
    """What one class is expected to ask of an endpoint.

    `per_s` is in calls a second; `kept` calls are left to it now by lower classes, in the fullest window.
    """

    priority: Priority
    per_s: float
    kept: int


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One endpoint's health.

    `utilisation` is that of the fullest window; `violations` counts 429s, `malformed_headers` fields of
    upstream's responses that could not be read. `scheduling_error_s` says how far off, on average, the times
    were that waiters and bookings were told; None: none was served yet.
    """

    endpoint: str
    health: Health
    utilisation: float
    active_workers: int
    queued: int
    windows: tuple[Window, ...]
    violations: int
    gate: Gate
    learned: tuple[LearnedLimit, ...]
    malformed_headers: int
    forecasts: tuple[ClassForecast, ...] = ()
    scheduling_error_s: float | None = None


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """Every endpoint's health, by name; `health` is the worst."""

    health: Health
    endpoints: tuple[EndpointStatus, ...]


# ---- what a session is told


@dataclass(frozen=True, slots=True)
class Revoked:
    """A lease is lost. Its block, if it is one of this client's, is cancelled in time.

    Attributes:
        grant_id: its fencing token or id.
        name: the item, `type/resource_id` or pool.
        reason: why.
        within_s: seconds until it is taken, in which to bring the work to an end; 0: it is.
    """

    grant_id: int
    name: str
    reason: RevocationReason
    within_s: float


@dataclass(frozen=True, slots=True)
class LeasesExpiring:
    """The daemon misses two keepalives in a row.

    Attributes:
        grant_ids: what ends before the session does, soonest first, at most 100.
        expires_in_s: seconds left of the first; None: there is none.
        session_expires_in_s: seconds left of the session.
    """

    grant_ids: tuple[int, ...]
    expires_in_s: float | None
    session_expires_in_s: float


@dataclass(frozen=True, slots=True)
class GateChanged:
    """An endpoint's gate, as it is now."""

    endpoint: str
    gate: Gate


@dataclass(frozen=True, slots=True)
class CapacityChanged:
    """A pool's capacity has changed, in units."""

    pool: str
    before: int
    after: int


SessionEvent = Revoked | LeasesExpiring | GateChanged | CapacityChanged


# ---- escalations


@dataclass(frozen=True, slots=True)
class Escalation:
    """A conflict that a coordination worker is asked to decide.

    Attributes:
        escalation_id: names it.
        subject: what is contended: the item, `type/resource_id` or pool.
        worker: who waits.
        priority: the waiter's class.
        waited_s: how long it had waited when this was opened.
        holder: who holds it, where there is one holder; else empty.
        holder_id: the token or id of what the holder has; 0: there is no one holder.
        opened_at: when it was opened.
        decide_by: when the default holds if nobody decides.
        decide_within_s: time left for it.
        default_decision: what holds if nobody decides.
        decision: what was decided; UNSPECIFIED while it is open, and where the wait ended before.
        decided_by: who decided, `default` where nobody did; else empty.
        is_open: whether it can still be decided.
    """

    escalation_id: int
    subject: str
    worker: str
    priority: Priority
    waited_s: float
    holder: str
    holder_id: int
    opened_at: datetime
    decide_by: datetime
    decide_within_s: float
    default_decision: Decision
    decision: Decision
    decided_by: str
    is_open: bool
