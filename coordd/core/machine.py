"""The state machine: every decision of the daemon, one at a time, in memory.

Owns: the way in (`apply`, `tick`), what comes out (outcomes, notices, changes), and the views.
Rules: time is an argument (ns since the epoch) and never runs backwards. Equal inputs give equal outputs. A
refusal or an error changes nothing: `digest()` is the same before and after. Whatever comes free is given to
its next waiter in the same step.
Must not know: clocks, randomness, files, the network, the event loop, log or wire formats.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from coordd.core.capacity import Adaptive
from coordd.core.commands import (
    AcquireBundle,
    CancelSchedule,
    CloseSession,
    ForceRelease,
    KeepSession,
    LeaveWait,
    OpenSession,
    RecordUsage,
    ReleaseBundle,
    ReleaseLock,
    ReleaseResource,
    RenewBundle,
    RenewLock,
    RenewReservation,
    RequestLock,
    ReserveResource,
    ResolveEscalation,
    ScheduleRequest,
    TakePermit,
    UpdateLimit,
    UpdatePool,
)
from coordd.core.earmarks import Patience
from coordd.core.errors import NotFound
from coordd.core.forecasts import Forecasts
from coordd.core.limit import Limit
from coordd.core.limit_views import allocation, allocations
from coordd.core.limits import DUE_PER_TICK_MAX, QUEUES_PER_STEP_MAX
from coordd.core.locks import Rest, unknown_kind
from coordd.core.outcomes import (
    Booked,
    BundleEnded,
    Expired,
    Forced,
    GrantReturned,
    Notice,
    Outcome,
    Place,
    Preempted,
)
from coordd.core.parts import Parts
from coordd.core.preemption import is_taken
from coordd.core.queues import QueueKey
from coordd.core.recall import Recall
from coordd.core.records import (
    Booking,
    Bundle,
    Escalation,
    Key,
    Lock,
    Permit,
    Reservation,
    Row,
    Session,
    Table,
)
from coordd.core.recovery import Recovery
from coordd.core.rules import Rules
from coordd.core.shares import Sharer
from coordd.core.snapshots import digest, snapshot
from coordd.core.takeover import Takeover
from coordd.core.views import (
    AllocationView,
    AvailabilityView,
    Counts,
    ItemView,
    LimitView,
    PoolView,
    QuotaView,
    SessionView,
)
from coordd.core.waiters import ReturnGrant, Waiter
from coordd.core.waits import Wake

Command = (
    RequestLock
    | RenewLock
    | ReleaseLock
    | ReserveResource
    | RenewReservation
    | ReleaseResource
    | TakePermit
    | RecordUsage
    | ScheduleRequest
    | CancelSchedule
    | LeaveWait
    | ReturnGrant
    | ForceRelease
    | UpdatePool
    | UpdateLimit
    | AcquireBundle
    | RenewBundle
    | ReleaseBundle
    | OpenSession
    | KeepSession
    | CloseSession
    | ResolveEscalation
)


class Machine:
    """The three components over one ledger and one wait queue.

    New, it is empty; `recover` fills it from a store.
    """

    def __init__(self, rules: Rules) -> None:
        # The last instant seen; views of the windows are as of it.
        self._now = 0
        self._assemble(rules)

    def _assemble(self, rules: Rules) -> None:
        self.rules = rules
        parts = self._parts = Parts(rules)
        self._ledger = parts.ledger
        self._queues = parts.queues
        self._locks = parts.locks
        self._reservations = parts.reservations
        self._rate_limits = parts.rate_limits
        self._overrides = parts.overrides
        self._bundles = parts.bundles
        self._escalations = parts.escalations
        self._waits = parts.waits
        self._decisions = parts.decisions
        self._sessions = parts.sessions
        self._handlers: dict[type, Callable[[Any, int], Outcome]] = {
            RequestLock: self._waits.request,
            RenewLock: self._locks.renew,
            ReleaseLock: self._locks.release,
            ReserveResource: self._waits.request,
            RenewReservation: self._reservations.renew,
            ReleaseResource: self._reservations.release,
            TakePermit: self._take_permit,
            RecordUsage: self._rate_limits.record_usage,
            ScheduleRequest: self._schedule,
            CancelSchedule: self._rate_limits.bookings.cancel,
            LeaveWait: self._waits.leave,
            ReturnGrant: self._return_grant,
            ForceRelease: self._force_release,
            UpdatePool: self._overrides.update_pool,
            UpdateLimit: self._overrides.update_limit,
            OpenSession: self._open_session,
            KeepSession: self._sessions.keep,
            CloseSession: self._sessions.close,
            AcquireBundle: self._waits.request,
            RenewBundle: self._bundles.renew,
            ReleaseBundle: self._bundles.release,
            ResolveEscalation: self._decisions.resolve,
        }
        self._due: dict[type, Callable[[Any, int], None]] = {
            Lock: self._expire_lock,
            Reservation: self._expire_reservation,
            Booking: self._lapse_booking,
            Limit: self._expire_permits,
            Rest: self._locks.wake,
            Forecasts: lambda forecasts, _: self._rate_limits.end_bin(forecasts),
            Recall: lambda recall, now: recall.sweep(now),
            Waiter: self._waits.due,
            Session: self._sessions.due,
            Escalation: self._decisions.due,
            Patience: self._waits.earmarks.run_out,
            Sharer: lambda sharer, now: sharer.shares.due(sharer, now),
            Adaptive: self._reservations.capacities.due,
            Wake: lambda wake, _: self._ledger.freed.append(wake.key),
        }
        self._force: dict[type, Callable[[Any, int], None]] = {
            Lock: self._locks.force,
            Reservation: self._reservations.force,
            Booking: self._rate_limits.bookings.lapse,
            Bundle: self._bundles.force,
        }
        self._undo: dict[type, Callable[[Any, int], None]] = {
            Lock: self._locks.undo,
            Reservation: self._reservations.undo,
            Permit: self._rate_limits.undo,
            Bundle: self._bundles.undo,
        }

    # -- the way in ------------------------------------------------------------------------------------------

    def apply(self, command: Command, now: int) -> Outcome:
        """Decide one command. Call `tick` first while anything is due.

        Raises: CommandError, having changed nothing.
        """
        self._now = now
        outcome = self._handlers[command.__class__](command, now)
        ledger = self._ledger
        if ledger.parted:
            ended = self._bundles.part(now, is_given_back=command.__class__ in _GIVING_BACK)
            ledger.notices.extend(BundleEnded(bundle=bundle) for bundle in ended)
        if ledger.conditions.broken:
            self._waits.look_again(now)
        if ledger.freed:
            self._serve_freed(now)
        return outcome

    def tick(self, now: int) -> None:
        """Do what is due at `now`, at most `DUE_PER_TICK_MAX` of it; `next_deadline` says whether more is."""
        self._now = now
        for _ in range(DUE_PER_TICK_MAX):
            target = self._ledger.deadlines.pop_due(now)
            if target is None:
                break
            self._due[target.__class__](target, now)
            if self._ledger.parted:
                ended = self._bundles.part(now, is_given_back=False)
                self._ledger.notices.extend(Expired(grant=bundle) for bundle in ended)
            if self._ledger.conditions.broken:
                self._waits.look_again(now)
            self._serve_freed(now)

    def next_deadline(self) -> int | None:
        """Return the instant at which something falls due, or None."""
        return self._ledger.deadlines.next_at()

    # -- what comes out --------------------------------------------------------------------------------------

    @property
    def has_changes(self) -> bool:
        """Whether anything durable has changed since `take_changes`."""
        return bool(self._ledger.changes)

    @property
    def changed(self) -> int:
        """How many durable records have changed since `take_changes`."""
        return len(self._ledger.changes)

    @property
    def last_id(self) -> int:
        """The last id given."""
        return self._ledger.last_id

    def take_changes(self) -> tuple[dict[Table, list[Row]], dict[Table, list[Key]]]:
        """Return the rows to write and the keys to delete since the last call."""
        return self._ledger.changes.take()

    def take_notices(self) -> list[Notice]:
        """Return what has happened to waiters and leases since the last call, in order."""
        notices = self._ledger.notices
        if notices:
            self._ledger.notices = []
        return notices

    # -- recovery --------------------------------------------------------------------------------------------

    @property
    def history_ns(self) -> int:
        """How much of the history decisions need."""
        return history_needed(self.rules)

    def recover(self, tables: Mapping[Table, Sequence[Row]], last_id: int, now: int) -> None:
        """Take everything live in as it was stored, into a new machine. See `recovery`."""
        self._now = now
        Recovery(self._parts).recover(tables, last_id, now)

    def reload(self, rules: Rules, stored: Mapping[Table, Sequence[Row]], now: int) -> None:
        """Go on under other rules. See `takeover`. Call it when all is stored, and `tick` before.

        Args: stored: all charges, and the last `history_needed(rules)` of the history. Cost: O(everything).
        """
        former, self._now = self._parts, now
        self._assemble(rules)
        Takeover(self._parts, former).take_over(stored, now)
        self._serve_freed(now)

    # -- views -----------------------------------------------------------------------------------------------

    def place(self, waiter_id: int, now: int) -> Place | None:
        """Return where a waiter stands, or None if it waits no longer or is away."""
        return self._waits.place(waiter_id, now)

    def queue_length(self, key: QueueKey) -> int:
        """Return how many wait in a queue. Cost: O(1)."""
        return self._queues.length(key)

    def waiters(self) -> dict[tuple[type, int], int]:
        """Return how many wait, those who are away included, by what they ask for and their class.

        Cost: O(those).
        """
        return dict(self._waits.counts)

    def item(self, item: str, kind: str, now: int) -> ItemView:
        """Return who holds an item. Raises: InvalidArgument (UNKNOWN_KIND) for a kind given but not known."""
        if kind and kind not in self.rules.kinds:
            raise unknown_kind(kind, self.rules.kinds)
        return self._locks.view(item, kind)

    def availability(self, command: ReserveResource, now: int) -> AvailabilityView:
        """Return whether a reservation would be made now, and how long it would wait if not."""
        return self._reservations.availability(command, self._waits.rank(command, now), now)

    def locks(self, tokens: Iterable[int]) -> list[Lock]:
        """Return those locks of the given tokens that are live, as they stand now."""
        live = map(self._ledger.live.get, tokens)
        return [lock for lock in live if isinstance(lock, Lock)]

    def reservations(self, ids: Iterable[int]) -> list[Reservation]:
        """Return those reservations of the given ids that are live, as they stand now."""
        live = map(self._ledger.live.get, ids)
        return [reservation for reservation in live if isinstance(reservation, Reservation)]

    def limit(self, endpoint: str, now: int) -> LimitView:
        """Return an endpoint's limit. Raises: InvalidArgument (UNKNOWN_ENDPOINT)."""
        return self._rate_limits.view(self._rate_limits.limit(endpoint), now)

    def limits(self, now: int) -> list[LimitView]:
        """Return every endpoint's limit, by name."""
        return [self._rate_limits.view(limit, now) for limit in self._rate_limits]

    def pool(self, name: str, now: int) -> PoolView:
        """Return a pool. Raises: NotFound (UNKNOWN_POOL)."""
        return self._reservations.view(self._overrides.pool(name), now)

    def pools(self, now: int) -> list[PoolView]:
        """Return every pool, by name."""
        return [self._reservations.view(pool, now) for pool in self._reservations]

    def allocation(self, endpoint: str, worker: str, now: int) -> AllocationView:
        """Return a worker's part of an endpoint. Raises: InvalidArgument (UNKNOWN_ENDPOINT)."""
        return allocation(self._rate_limits.limit(endpoint), worker, now)

    def sessions(self) -> list[SessionView]:
        """Return every open session, by worker."""
        return self._sessions.views()

    def escalations(self) -> list[Escalation]:
        """Return the open escalations as they are now, oldest first."""
        return [replace(escalation) for escalation in self._escalations.all()]

    def allocations(self, endpoint: str, now: int, *, after: str, count: int) -> list[AllocationView]:
        """Return the parts of `count` workers that share a fair endpoint now, by name, `after` one.

        Raises: InvalidArgument (UNKNOWN_ENDPOINT). Cost: O(workers x log).
        """
        limit = self._rate_limits.limit(endpoint)
        return allocations(limit, now, after=after, count=count)

    def counts(self) -> Counts:
        """Return how much there is of everything."""
        live = self._ledger.live
        locks, reservations, permits = len(self._locks), self._reservations.count, self._rate_limits.permits
        return Counts(
            locks=locks,
            reservations=reservations,
            permits=permits,
            bookings=len(live) - locks - reservations - permits - self._bundles.count,
            bundles=self._bundles.count,
            waiters=len(self._waits.waiters),
            waiters_away=self._waits.away,
            sessions=len(self._ledger.sessions),
            escalations=len(self._escalations),
            last_id=self._ledger.last_id,
        )

    def quotas(self) -> list[QuotaView]:
        """Return the quotas that are set, and what is taken of each."""
        return self._ledger.quotas.views(
            waiters=len(self._waits.waiters), sessions=len(self._ledger.sessions)
        )

    def snapshot(self) -> dict[Table, list[Row]]:
        """Return every durable record as it stands, by table, in order.

        What a store should hold, expired charges aside.
        """
        return snapshot(self._parts, self._now)

    def digest(self) -> bytes:
        """Return a hash of the whole state as of the last instant seen.

        Durable or not, whatever decisions depend on.
        """
        return digest(self._parts, self._now)

    # --------------------------------------------------------------------------------------------------------

    def _serve_freed(self, now: int) -> None:
        ledger, borrowers = self._ledger, self._reservations.borrowers
        # Queues with more to serve than one step may: the next one goes on with them.
        left: set[QueueKey] = set()
        # In order, new ones included, each once: a resource before its pool, so that whoever waited for both
        # goes first; and those of a pool before those that it lends to.
        count = 0
        while ledger.freed:
            freed, ledger.freed = dict.fromkeys(ledger.freed), []
            for key in freed:
                count += key in self._queues
                if count > QUEUES_PER_STEP_MAX and key not in borrowers:
                    self._waits.serve_later(key, now)
                    continue
                self._serve(key, left, now)
                for borrower in borrowers.get(key, ()) if borrowers else ():
                    waiters = self._queues.length(borrower)
                    self._serve(borrower, left, now)
                    if self._queues.length(borrower) < waiters:
                        # Where fewer wait, what is free there may be lent in turn.
                        ledger.freed.append(borrower)

    def _serve(self, key: QueueKey, left: set[QueueKey], now: int) -> None:
        if key not in left and not self._waits.serve(key, now):
            left.add(key)

    def _take_permit(self, command: TakePermit, now: int) -> Outcome:
        if not command.booking_id:
            return self._waits.request(command, now)
        return self._waits.claim(command, self._rate_limits.claim, now)

    def _open_session(self, command: OpenSession, now: int) -> Outcome:
        return replace(self._sessions.open(command, now), gates=self._rate_limits.shut_gates())

    def _schedule(self, command: ScheduleRequest, now: int) -> Outcome:
        if command.request_id:
            earlier = self._waits.earlier(command, now)
            if earlier is not None:
                return Booked(booking=self._rate_limits.bookings.same(command, earlier), is_repeat=True)
        return self._rate_limits.bookings.book(command, self._waits.rank(command, now), now)

    def _return_grant(self, command: ReturnGrant, now: int) -> GrantReturned:
        grant = self._ledger.live.get(command.id)
        if not isinstance(grant, Lock | Reservation | Permit | Bundle):
            return GrantReturned(grant=None)
        self._undo[grant.__class__](grant, now)
        self._ledger.forget_waiting(grant.worker, grant.request_id)
        if command.waiter is not None and grant.request_id:
            self._waits.restore(command.waiter, now)
        return GrantReturned(grant=grant)

    def _force_release(self, command: ForceRelease, now: int) -> Forced:
        grant = self._ledger.live.get(command.id)
        if grant is None or isinstance(grant, Permit):
            raise NotFound(
                "UNKNOWN_ID", f"No lock, reservation, booking or bundle {command.id} is live.", id=command.id
            )
        self._force[grant.__class__](grant, now)
        return Forced(grant=grant)

    def _expire_lock(self, lock: Lock, now: int) -> None:
        if self._locks.expire(lock, now):
            self._ledger.notices.append(_run_out(lock, now))

    def _expire_reservation(self, reservation: Reservation, now: int) -> None:
        if self._reservations.expire(reservation, now):
            self._ledger.notices.append(_run_out(reservation, now))

    def _expire_permits(self, limit: Limit, now: int) -> None:
        self._ledger.notices.extend(Expired(grant=permit) for permit in self._rate_limits.expire(limit, now))

    def _lapse_booking(self, booking: Booking, now: int) -> None:
        self._rate_limits.bookings.lapse(booking, now)
        self._ledger.notices.append(Expired(grant=booking))


def history_needed(rules: Rules) -> int:
    """Return how much of the history decisions need under these rules."""
    needed = [
        max(kind.min_interval_ns, kind.lock_delay_ns, *kind.min_interval_after_ns.values())
        for kind in rules.kinds.values()
    ]
    return max([rules.request_memory_ns, rules.engagement_memory_ns, *needed])


def _run_out(lease: Lock | Reservation, now: int) -> Notice:
    return Preempted(grant=lease, at=now) if is_taken(lease) else Expired(grant=lease)


# By these a holder ends what it holds singly.
_GIVING_BACK: Final = frozenset({ReleaseLock, ReleaseResource, RecordUsage})
