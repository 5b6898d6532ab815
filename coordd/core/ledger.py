"""What the components share: ids, live grants, request ids, changes, deadlines, observed hold times.

Owns: the one sequence of ids (fencing tokens, reservations, permits, bookings, waiters), the index of
everything live by id and by request id, and the hold times that estimates come from.
Must not know: the rules by which anything is granted.
"""

from typing import Final

from coordd.core.changes import Changes
from coordd.core.conditions import Conditions
from coordd.core.deadlines import Deadlines
from coordd.core.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from coordd.core.limits import ENDED_REQUESTS_MAX, LEASES_PER_SESSION_MAX, SECOND
from coordd.core.outcomes import Notice
from coordd.core.queues import QueueKey
from coordd.core.quotas import Quotas
from coordd.core.recall import Recall
from coordd.core.records import (
    Booking,
    Bundle,
    EndedRequest,
    HoldTime,
    Lock,
    Permit,
    Reservation,
    Session,
    Table,
)
from coordd.core.rules import Rules

Live = Lock | Reservation | Permit | Booking | Bundle
# Each start's ids begin above every id that any earlier start can have given, even one whose last commits, or
# whose whole file, were lost: at the instant of the start in seconds x 2**20. That stays below 2**53, which
# JSON keeps exact, until the year 2242.
_IDS_PER_SECOND: Final = 1 << 20
# A new observation counts for an eighth, as in TCP's smoothed round-trip time (RFC 6298).
_HOLD_TIME_WEIGHT: Final = 8


class Ledger:
    """The shared state; its parts are public to the components of `core` and to nobody else."""

    __slots__ = (
        "_changed_ended",
        "_changed_hold_times",
        "_ended",
        "changes",
        "conditions",
        "deadlines",
        "freed",
        "hold_times",
        "last_id",
        "live",
        "members",
        "notices",
        "parted",
        "quotas",
        "requests",
        "sessions",
    )

    def __init__(self, rules: Rules) -> None:
        self.changes = Changes()
        self._changed_ended = self.changes.of[Table.ENDED_REQUESTS]
        self._changed_hold_times = self.changes.of[Table.HOLD_TIMES]
        self.deadlines = Deadlines()
        self.last_id = 0
        self.live: dict[int, Live] = {}
        self.quotas = Quotas(rules.quotas, self.live)
        self.conditions = Conditions()
        # Members of bundles by id, each with its bundle; and those that have ended since bundles were told.
        self.members: dict[int, Bundle] = {}
        self.parted: list[int] = []
        # (worker, request id) -> what it was given: a grant, a booking, a waiter, or the memory that it is
        # over.
        self.requests: dict[tuple[str, str], object] = {}
        self.hold_times: dict[str, HoldTime] = {}
        # By worker. While there are none, a lease costs no more than to see that.
        self.sessions: dict[str, Session] = {}
        # Queues whose resource may have become free; the machine serves them before it answers.
        self.freed: list[QueueKey] = []
        self.notices: list[Notice] = []
        self._ended: Recall[EndedRequest] = Recall(
            self.deadlines, rules.request_memory_ns, self._forget_request
        )

    def start_ids(self, last_id: int, now: int) -> None:
        """Begin above `last_id` and above every id that an earlier start can have given."""
        self.last_id = max(last_id, now * _IDS_PER_SECOND // SECOND)

    def next_id(self) -> int:
        """Give the next id: higher than every other there ever was."""
        self.last_id += 1
        return self.last_id

    def ended(self, id: int, what: str) -> None:
        """Check that `id` may have been given once. Raises: NotFound if it never was."""
        if not 0 < id <= self.last_id:
            raise NotFound("UNKNOWN_ID", f"No {what} {id} was ever given.", id=id)

    def end_request(self, worker: str, request_id: str, now: int) -> None:
        """Remember that this request id's grant is over, so that a late copy of it is not granted anew."""
        if request_id:
            record = EndedRequest(worker, request_id, now)
            self._changed_ended[(worker, request_id)] = record
            self.remember_ended(record)

    def remember_ended(self, record: EndedRequest) -> None:
        """Take the memory of an ended request in, forgetting the oldest where there are too many."""
        if len(self._ended) >= ENDED_REQUESTS_MAX:
            self._ended.forget_oldest()
        self.requests[(record.worker, record.request_id)] = record
        self._ended.remember(record, record.at)

    def forget_waiting(self, worker: str, request_id: str) -> None:
        """Forget a request id that was never granted: it may be used again."""
        self.requests.pop((worker, request_id), None)

    def part(self, id: int) -> None:
        """Note that `id` has ended, if it is a bundle's. Call only where there are `members`."""
        if id in self.members:
            self.parted.append(id)

    def observe_hold(self, subject: str, held_ns: int) -> None:
        """Take one lease's length into the mean for `subject`."""
        seen = self.hold_times.get(subject)
        if seen is None:
            seen = self.hold_times[subject] = HoldTime(subject=subject, mean_ns=held_ns, count=0)
        seen.mean_ns += (held_ns - seen.mean_ns) // _HOLD_TIME_WEIGHT
        seen.count += 1
        self._changed_hold_times[subject] = seen

    def has_observed(self, subject: str) -> bool:
        """Whether a mean hold time is more than its first few observations."""
        seen = self.hold_times.get(subject)
        return seen is not None and seen.count >= _HOLD_TIME_WEIGHT

    def begin_lease(self, id: int, lease: Lock | Reservation) -> None:
        """Let its worker's session, if there is one, keep a lease that was taken in it."""
        session = self.sessions.get(lease.worker)
        if session is not None and id > session.id:
            session.leases[id] = lease

    def end_lease(self, id: int, lease: Lock | Reservation) -> None:
        """Let no session keep a lease any longer."""
        session = self.sessions.get(lease.worker)
        if session is not None:
            session.leases.pop(id, None)

    def check_session(self, worker: str, count: int) -> None:
        """Check that a worker's session, if it has one, can keep so much more, waits included.

        Raises: ResourceExhausted (TOO_MANY_LEASES).
        """
        session = self.sessions.get(worker)
        if session is not None and len(session.leases) + len(session.waits) + count > LEASES_PER_SESSION_MAX:
            raise ResourceExhausted(
                "TOO_MANY_LEASES",
                f"The session of {worker!r} keeps {LEASES_PER_SESSION_MAX} leases at most, waits included.",
                worker=worker,
                limit=LEASES_PER_SESSION_MAX,
            )

    def begin_wait(self, id: int, worker: str) -> None:
        """Let a worker's session, if there is one, know of a wait that was begun in it."""
        session = self.sessions.get(worker)
        if session is not None and id > session.id:
            session.waits[id] = None

    def end_wait(self, id: int, worker: str) -> None:
        """Let no session know of a wait any longer."""
        session = self.sessions.get(worker)
        if session is not None:
            session.waits.pop(id, None)

    def _forget_request(self, record: EndedRequest) -> None:
        key = (record.worker, record.request_id)
        known = self.requests.get(key)
        if known is record:
            del self.requests[key]
        if known is record or not isinstance(known, EndedRequest):
            self._changed_ended[key] = None


def not_holder(what: str, id: int, worker: str) -> FailedPrecondition:
    """Build the error for a call by somebody who does not hold what it names."""
    return FailedPrecondition(
        "NOT_HOLDER", f"The {what} {id} is not held by {worker!r}, or not as named.", id=id, worker=worker
    )


def lease_lost(what: str, id: int) -> FailedPrecondition:
    """Build the error for a lease that has ended."""
    return FailedPrecondition("LEASE_LOST", f"The {what} {id} is held no longer.", id=id)


def request_id_reused(request_id: str) -> AlreadyExists:
    """Build the error for a request id that was used for something else."""
    return AlreadyExists(
        "REQUEST_ID_REUSED",
        f"The request id {request_id!r} belongs to another request.",
        request_id=request_id,
    )
