"""What the state machine shows of itself. Values made on request; changing nothing."""

from enum import IntEnum

from msgspec import Struct

from coordd.core.outcomes import Refused
from coordd.core.records import LearnedLimit, Lock, Session


class GateState(IntEnum):
    """Whether an endpoint is open; numbers as in the protos."""

    OPEN = 1
    CLOSED = 2
    PROBING = 3


class GateView(Struct, frozen=True, kw_only=True, gc=False):
    """An endpoint's gate. `opens_at`: when the next call may be made at the latest; 0: open."""

    state: GateState
    opens_at: int = 0
    strikes: int = 0


class WindowView(Struct, frozen=True, kw_only=True):
    """One rolling window.

    `used` includes what permits are promised, and bookings that a call made now would meet; `resets_at`: all
    of it has left.
    """

    length_ns: int
    limit: int
    used: int
    resets_at: int

    @property
    def remaining(self) -> int:
        """Permits left, never below 0."""
        return max(0, self.limit - self.used)


class ForecastView(Struct, frozen=True, kw_only=True, gc=False):
    """What a class is expected to want: calls a second, in parts of 10**6.

    `kept`: calls that lower classes leave to it now, in the fullest window.
    """

    priority: int
    rate_ppm: int
    kept: int


class LimitView(Struct, frozen=True, kw_only=True):
    """An endpoint's limit.

    `windows` shortest first; `remaining` is what could be taken now. `scheduling_error_ns`: the mean of
    |actual - promised| over waits and bookings, None: none was served yet.
    """

    name: str
    windows: tuple[WindowView, ...]
    is_fair: bool
    use_within_ns: int
    claim_window_ns: int
    queued: int
    bookings: int
    active_workers: int
    violations: int
    is_overridden: bool
    gate: GateView = GateView(state=GateState.OPEN)
    learned: tuple[LearnedLimit, ...] = ()
    malformed_headers: int = 0
    forecasts: tuple[ForecastView, ...] = ()
    scheduling_error_ns: int | None = None

    @property
    def remaining(self) -> int:
        """Permits that could be taken now: the least of all windows."""
        return min(window.remaining for window in self.windows)

    @property
    def utilisation(self) -> float:
        """Charges / limit of the fullest window."""
        return max(window.used / window.limit for window in self.windows)


class ShareView(Struct, frozen=True, kw_only=True):
    """A worker's part of one window.

    `own`: by its weight, 0 where nothing is shared. `lent`: what of that it is not expected to want.
    `borrowed`: what it uses beyond that.
    """

    length_ns: int
    allocated: int
    used: int
    remaining: int
    own: int = 0
    lent: int = 0
    borrowed: int = 0


class AllocationView(Struct, frozen=True, kw_only=True):
    """A worker's part of an endpoint; `name` is the worker's. `efficiency`: 0..1."""

    name: str
    windows: tuple[ShareView, ...]
    active_workers: int
    weight: float = 1.0
    efficiency: float = 1.0
    demand_per_s: float = 0.0
    queued_units: int = 0


class PoolView(Struct, frozen=True, kw_only=True):
    """A pool. `windows` is empty where units are held and come back; capacity_min 0: it does not adapt."""

    name: str
    capacity: int
    used: int
    free: int
    queued: int
    windows: tuple[WindowView, ...]
    is_overridden: bool
    capacity_min: int
    capacity_max: int
    overflow: str
    is_fair: bool


class AvailabilityView(Struct, frozen=True, kw_only=True):
    """Whether a reservation could be made. `blocked_by` None: yes. `wait_ns` None: nothing observed yet."""

    blocked_by: Refused | None
    position: int
    wait_ns: int | None
    free_units: int
    capacity: int


class ItemView(Struct, frozen=True, kw_only=True):
    """An item: its holder if any, the end of its rest after a lapse (0: none), and who waits."""

    lock: Lock | None
    delayed_until: int
    waiters: int


class SessionView(Struct, frozen=True, kw_only=True):
    """A worker's session; `weight_milli` as it holds, and how many leases it keeps."""

    name: str
    session: Session
    weight_milli: int
    held: int


class QuotaView(Struct, frozen=True, kw_only=True, gc=False):
    """A quota that is set: what there is, and what there may be."""

    name: str
    used: int
    limit: int


class Counts(Struct, frozen=True, kw_only=True):
    """How much the state machine holds."""

    locks: int
    reservations: int
    permits: int
    bookings: int
    bundles: int
    waiters: int
    waiters_away: int
    sessions: int
    escalations: int
    last_id: int
