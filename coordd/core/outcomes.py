"""What the state machine answers.

Grants carry the live record: its end may already be later when the answer is read.
"""

from enum import IntEnum

from msgspec import Struct

from coordd.core.errors import CommandError
from coordd.core.records import (
    Booking,
    Bundle,
    Engagement,
    Escalation,
    Gate,
    Lock,
    Permit,
    Reservation,
    Session,
)
from coordd.core.waiters import Waiter

Grant = Lock | Reservation | Permit | Bundle


def grant_id(grant: Lock | Reservation | Permit | Bundle | Booking) -> int:
    """Return what names a grant: a lock's fencing token, or the id of anything else."""
    return grant.token if isinstance(grant, Lock) else grant.id


class Reason(IntEnum):
    """Why a request is refused or a waiter waits; numbers as in the protos."""

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


class Refused(Struct, frozen=True, kw_only=True, gc=False):
    """No, and why.

    `retry_at` 0: unknown. `position`: the place a wait would have had, from 1; 0: waiting is no use.
    """

    reason: Reason
    subject: str
    retry_at: int = 0
    holder: str = ""
    window_ns: int = 0
    position: int = 0


class Granted(Struct, frozen=True, kw_only=True):
    """Yes. `is_repeat`: the same request id was granted this before. `waiter`: it had waited."""

    grant: Grant
    is_repeat: bool = False
    waiter: Waiter | None = None


class Queued(Struct, frozen=True, kw_only=True, gc=False):
    """The request waits, as waiter `id`. `is_resumed`: it had waited before, under the same request id."""

    id: int
    is_resumed: bool = False


class Place(Struct, frozen=True, kw_only=True):
    """Where a waiter stands.

    Position from 1, estimate in ns (None: nothing observed yet), and what blocks it.
    """

    position: int
    wait_ns: int | None
    blocked_by: Refused
    times_out_at: int


class Renewed(Struct, frozen=True, kw_only=True):
    """The lease is extended."""

    grant: Lock | Reservation | Bundle


class LockReleased(Struct, frozen=True, kw_only=True):
    """The lock is given back and the history says so. `is_repeat`: it had been before."""

    engagement: Engagement
    is_repeat: bool = False


class ResourceReleased(Struct, frozen=True, kw_only=True):
    """The reservation is given back; None: it had ended before."""

    reservation: Reservation | None


class UsageRecorded(Struct, frozen=True, kw_only=True):
    """The permit is settled; None: it had been before, or its time had passed."""

    permit: Permit | None
    refunded: int = 0


class BundleReleased(Struct, frozen=True, kw_only=True):
    """What was left of the bundle is given back; None: nothing was. `engagements`: of its locks."""

    bundle: Bundle | None
    engagements: tuple[Engagement, ...] = ()
    refunded: int = 0


class SessionOpened(Struct, frozen=True, kw_only=True):
    """The worker is there.

    `preempted`: what it keeps that is being taken from it; `gates`: those that are not open.
    """

    session: Session
    is_resumed: bool
    kept: "SessionKept"
    weight_milli: int
    preempted: tuple[Lock | Reservation, ...] = ()
    gates: tuple[Gate, ...] = ()


class SessionKept(Struct, frozen=True, kw_only=True, gc=False):
    """The leases `held`, by id, are renewed; the first ends at `first_end`, 0: there is none.

    `keepalive_ns`: keep it again within this.
    """

    held: tuple[int, ...]
    first_end: int
    keepalive_ns: int


class SessionClosed(Struct, frozen=True, kw_only=True, gc=False):
    """The session has ended, and so many leases have gone back."""

    session: Session
    released: int


class EscalationResolved(Struct, frozen=True, kw_only=True):
    """The escalation is decided."""

    escalation: Escalation


class Booked(Struct, frozen=True, kw_only=True):
    """The time is booked."""

    booking: Booking
    is_repeat: bool = False


class BookingCancelled(Struct, frozen=True, kw_only=True):
    """The booking is given back; None: it had ended before."""

    booking: Booking | None


class WaiterLeft(Struct, frozen=True, kw_only=True, gc=False):
    """The waiter is away or gone."""

    is_away: bool


class GrantReturned(Struct, frozen=True, kw_only=True):
    """The grant nobody heard of is undone; None: it had ended before."""

    grant: Grant | None


class Forced(Struct, frozen=True, kw_only=True):
    """The operator has taken it."""

    grant: Lock | Reservation | Booking | Bundle


class Updated(Struct, frozen=True, kw_only=True, gc=False):
    """The operator's change holds."""

    subject: str


Outcome = (
    Granted
    | Refused
    | Queued
    | Renewed
    | LockReleased
    | ResourceReleased
    | UsageRecorded
    | Booked
    | BookingCancelled
    | WaiterLeft
    | GrantReturned
    | Forced
    | Updated
    | BundleReleased
    | SessionOpened
    | SessionKept
    | SessionClosed
    | EscalationResolved
)


class WaitGranted(Struct, frozen=True, kw_only=True):
    """The waiter has its grant."""

    waiter: Waiter
    grant: Grant


class WaitRefused(Struct, frozen=True, kw_only=True):
    """The waiter waits no longer."""

    waiter: Waiter
    refused: Refused


class WaitVoided(Struct, frozen=True, kw_only=True):
    """The waiter waits no longer: by other rules, what it asks for is an error."""

    waiter: Waiter
    error: CommandError


class Expired(Struct, frozen=True, kw_only=True):
    """A lease, a permit's time or a booking's claim window ran out; or the last of a bundle's members did."""

    grant: Lock | Reservation | Permit | Booking | Bundle


class BundleEnded(Struct, frozen=True, kw_only=True):
    """The last of a bundle's members was released or taken singly, and the bundle ended with it."""

    bundle: Bundle


class Preempted(Struct, frozen=True, kw_only=True):
    """A lease is taken from its holder at `at`: in a while, or now."""

    grant: Lock | Reservation
    at: int


class EscalationChanged(Struct, frozen=True, kw_only=True):
    """An escalation was opened, or closed: decided, or its wait ended. A copy, as it was then."""

    escalation: Escalation
    is_open: bool


class GateChanged(Struct, frozen=True, kw_only=True):
    """An endpoint's gate was opened, closed or set to probing. A copy, as it was then."""

    gate: Gate


class LimitLearned(Struct, frozen=True, kw_only=True, gc=False):
    """Upstream allows `value` in a window; in force if that is less than `configured`, else a suggestion."""

    subject: str
    window_ns: int
    value: int
    configured: int
    is_in_force: bool


class Alert(Struct, frozen=True, kw_only=True, gc=False):
    """Something needs a person's attention; `detail` is a sentence."""

    subject: str
    detail: str


class CapacityChanged(Struct, frozen=True, kw_only=True, gc=False):
    """A pool has adapted, by whole units."""

    pool: str
    before: int
    after: int


class SessionExpired(Struct, frozen=True, kw_only=True):
    """A session ran out; what its worker holds runs to its own end."""

    session: Session


class LeasesExpiring(Struct, frozen=True, kw_only=True, gc=False):
    """The worker's keepalive is late: its session ends at `session_end`, and so will these leases by then.

    The first at `first_end`, 0: there is none.
    """

    worker: str
    ids: tuple[int, ...]
    first_end: int
    session_end: int


class GivenBack(Struct, frozen=True, kw_only=True):
    """A lease went back, since its worker has closed its session."""

    grant: Lock | Reservation


Notice = (
    WaitGranted
    | WaitRefused
    | WaitVoided
    | Expired
    | BundleEnded
    | Preempted
    | EscalationChanged
    | GateChanged
    | LimitLearned
    | Alert
    | CapacityChanged
    | SessionExpired
    | LeasesExpiring
    | GivenBack
)
