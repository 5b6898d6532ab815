"""What the state machine answers.

Grants carry the live record: its end may already be later when the answer is read.
"""

from enum import IntEnum

from msgspec import Struct

from coordd.core.records import Booking, Engagement, Lock, Permit, Reservation
from coordd.core.waiters import Waiter

Grant = Lock | Reservation | Permit


def grant_id(grant: Lock | Reservation | Permit | Booking) -> int:
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

    grant: Lock | Reservation


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

    grant: Lock | Reservation | Booking


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
)


class WaitGranted(Struct, frozen=True, kw_only=True):
    """The waiter has its grant."""

    waiter: Waiter
    grant: Grant


class WaitRefused(Struct, frozen=True, kw_only=True):
    """The waiter waits no longer."""

    waiter: Waiter
    refused: Refused


class Expired(Struct, frozen=True, kw_only=True):
    """A lease, a permit's time or a booking's claim window ran out."""

    grant: Lock | Reservation | Permit | Booking


Notice = WaitGranted | WaitRefused | Expired
