"""RateLimiter: permits to call endpoints, in several rolling windows at once, and bookings of future ones.

Owns: each endpoint's windows, open permits and bookings. A permit is charged when it is taken; its record
only serves to settle it, so one whose time has passed is simply dropped and stays charged.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from msgspec.structs import replace

from coordd.core.allocations import Allocations, undivided
from coordd.core.claims import Blocked
from coordd.core.class_queues import ClassQueue
from coordd.core.commands import CancelSchedule, RecordUsage, ScheduleRequest, TakePermit
from coordd.core.errors import FailedPrecondition, InvalidArgument, OutOfRange, ResourceExhausted
from coordd.core.forecasts import Forecasts
from coordd.core.gates import Gates
from coordd.core.headers import NOT_TOLD, parse
from coordd.core.headroom import Headroom
from coordd.core.ledger import Ledger, not_holder, request_id_reused
from coordd.core.limits import BOOKINGS_PER_LIMIT_MAX, DUE_PER_TICK_MAX, SECOND
from coordd.core.outcomes import Booked, BookingCancelled, Reason, Refused, UsageRecorded
from coordd.core.pacing import Pace
from coordd.core.promises import Promises
from coordd.core.queues import QueueKey, Queues, Rank
from coordd.core.records import (
    Booking,
    Forecast,
    ForeignUsage,
    Gate,
    LearnedLimit,
    Permit,
    Table,
)
from coordd.core.rules import CRITICAL, LimitRule, PoolRule, Rules, spell_length
from coordd.core.shared_windows import SharedWindow, SharedWindows
from coordd.core.shares import Shares, Used
from coordd.core.sharing import Sharing
from coordd.core.upstream import Lessons, Upstream
from coordd.core.views import AllocationView, ForecastView, LimitView, WindowView
from coordd.core.windows import Full, Kept, Window, Windows

_TOO_MANY_REQUESTS = 429


class Limit:
    """One endpoint: its rule, its windows, and its open permits in the order in which their time passes.

    `headroom` None: no class must leave anything to others. `forecasts` None: nor to what they are expected
    to want. `pace` None: calls are permitted as they come. `shares` None: workers do not share it.
    """

    __slots__ = (
        "forecasts",
        "gate",
        "headroom",
        "in_flight",
        "key",
        "lessons",
        "name",
        "open",
        "pace",
        "promises",
        "rule",
        "scheduled_at",
        "shares",
        "violations",
        "windows",
    )

    def __init__(self, name: str, rule: LimitRule, ledger: Ledger, queues: Queues, sharing: Sharing) -> None:
        self.name = name
        self.rule = rule
        self.windows = windows_of(f"limit/{name}", rule, ledger)
        self.key: QueueKey = ("limit", name)
        self.forecasts = (
            Forecasts(self.windows.name, self.key, list(rule.windows), ledger)
            if rule.forecast_max > 0
            else None
        )
        self.headroom = headroom_of(rule, self.forecasts)
        self.pace = Pace(self.windows) if rule.is_even else None
        self.promises = Promises()
        self.shares = order_of(
            self.key, rule, self.headroom, SharedWindows(self.windows), queues=queues, sharing=sharing
        )
        self.open: dict[int, Permit] = {}
        # Calls of the open permits.
        self.in_flight = 0
        # None: upstream has never refused a call.
        self.gate: Gate | None = None
        self.lessons = Lessons()
        self.violations = 0
        # Due when the oldest open permit's time passes.
        self.scheduled_at = 0

    def kept_at(self, at: int, priority: int, count: int, now: int) -> Kept | None:
        """Return what a class that wants `count` at the instant `at` must leave of each window."""
        if self.headroom is None:
            return None
        return self.headroom.kept(priority, self.windows, now, count, at)


class RateLimits:
    """The limits by endpoint."""

    __slots__ = (
        "_changed",
        "_changed_bookings",
        "_gates",
        "_horizon_ns",
        "_ledger",
        "_limits",
        "_queues",
        "_upstream",
        "permits",
    )

    def __init__(self, rules: Rules, ledger: Ledger, queues: Queues, sharing: Sharing) -> None:
        self._ledger = ledger
        self._queues = queues
        self._gates = Gates(ledger)
        self._upstream = Upstream(ledger)
        self._horizon_ns = rules.schedule_horizon_ns
        self._changed = ledger.changes.of[Table.PERMITS]
        self._changed_bookings = ledger.changes.of[Table.BOOKINGS]
        # Permits not yet settled.
        self.permits = 0
        self._limits = {
            name: Limit(name, rule, ledger, queues, sharing) for name, rule in sorted(rules.limits.items())
        }

    def __iter__(self) -> Iterator[Limit]:
        """Every limit, by name."""
        return iter(self._limits.values())

    def __contains__(self, endpoint: str) -> bool:
        """Whether the endpoint is configured."""
        return endpoint in self._limits

    def limit(self, endpoint: str) -> Limit:
        """Return an endpoint's limit. Raises: InvalidArgument (UNKNOWN_ENDPOINT)."""
        limit = self._limits.get(endpoint)
        if limit is None:
            raise InvalidArgument(
                "UNKNOWN_ENDPOINT",
                f"The endpoint {endpoint!r} is not configured; there are: {', '.join(self._limits)}.",
                endpoint=endpoint,
            )
        return limit

    # -- Component -------------------------------------------------------------------------------------------

    def check(self, command: TakePermit, rank: Rank, now: int) -> Blocked | None:
        """See `Component.check`."""
        limit = self._limits.get(command.endpoint) or self.limit(command.endpoint)
        blocked = blocked_by_windows(
            limit.windows,
            limit.headroom,
            command.count,
            rank,
            now,
            key=limit.key,
            queues=self._queues,
            pace=limit.pace,
        )
        return blocked if limit.gate is None else self._gates.beside(limit, limit.gate, blocked, now)

    def take(self, command: TakePermit, now: int) -> Permit:
        """See `Component.take`."""
        return self._take(self._limits[command.endpoint], command, command.count, now)

    def validate(self, command: TakePermit) -> None:
        """See `Component.validate`."""
        limit = self.limit(command.endpoint)
        check_count(limit.name, command.count, limit.windows, limit.headroom, command.priority)

    def keys(self, command: TakePermit) -> tuple[QueueKey, ...]:
        """See `Component.keys`."""
        return (self.limit(command.endpoint).key,)

    def units(self, command: TakePermit, key: QueueKey) -> int:
        """See `Component.units`."""
        return command.count

    def estimate(self, command: TakePermit, rank: Rank, blocked: Blocked, now: int) -> int | None:
        """See `Component.estimate`: exact for the first in the queue, if nothing comes back early."""
        if blocked.reason is not Reason.HEADROOM:
            return max(0, blocked.retry_at - now)
        # What is kept for others is more likely to be taken by them than to be set free.
        limit = self._limits[command.endpoint]
        start, hold_ns = max(now, blocked.retry_at), limit.rule.use_within_ns
        kept = limit.kept_at(now, command.priority, command.count, now)
        return limit.windows.earliest(command.count, start, hold_ns, now, kept, since=now).at - now

    def least_wait(self, command: TakePermit, rank: Rank, blocked: Blocked, now: int) -> int:
        """See `Component.least_wait`."""
        limit = self._limits[command.endpoint]
        if limit.gate is not None and blocked.reason is Reason.GATE:
            # A probe may be answered at any moment, and those ahead need no longer than the windows do.
            ahead = self._queues.units_ahead(limit.key, rank, now)
            return max(limit.gate.closed_until, limit.windows.no_sooner(ahead + command.count, now)) - now
        return least_wait(limit.windows, command.count, rank, blocked, now, queues=self._queues)

    def is_for(self, command: TakePermit, grant: object) -> bool:
        """See `Component.is_for`."""
        return (
            isinstance(grant, Permit | TakePermit)
            and grant.endpoint == command.endpoint
            and (grant.count == command.count or command.booking_id != 0)
        )

    # -- Observer --------------------------------------------------------------------------------------------

    def arrived(self, command: TakePermit, now: int) -> None:
        """See `Observer.arrived`."""
        forecasts = self._limits[command.endpoint].forecasts
        if forecasts is not None:
            forecasts.count(command.priority, command.count, now)

    def served(self, command: TakePermit, promised_at: int, now: int) -> None:
        """See `Observer.served`."""
        self._limits[command.endpoint].promises.observe(promised_at, now)

    def end_bin(self, forecasts: Forecasts) -> None:
        """Learn from the demand of a bin that has ended; what is kept from whom may change."""
        forecasts.end_bin()
        self._ledger.freed.append(forecasts.key)

    # -- commands --------------------------------------------------------------------------------------------

    def claim(self, command: TakePermit, now: int) -> Permit | Refused:
        """Turn a booking whose time has come into a permit."""
        booking = self._own_booking(command.booking_id, command.worker, now)
        if booking is not None and booking.endpoint != command.endpoint:
            raise not_holder("booking", command.booking_id, command.worker)
        if booking is None:
            raise FailedPrecondition(
                "BOOKING_LAPSED",
                f"The booking {command.booking_id} is open no longer.",
                id=command.booking_id,
            )
        limit = self._limits[booking.endpoint]
        if now < booking.execute_at:
            return _too_early(booking)
        shut_until = self._gates.shut_until(limit, limit.gate, now) if limit.gate is not None else 0
        if shut_until:
            limit.promises.booking_late(booking.id, booking.execute_at, shut_until)
            return Refused(reason=Reason.GATE, subject=limit.name, retry_at=shut_until)
        limit.windows.unbook(booking)
        if not limit.windows.is_room(booking.count, now):
            # Only after an operator has lowered the limit since it was booked.
            full = limit.windows.earliest(booking.count, now, limit.rule.use_within_ns, now)
            limit.windows.book(booking)
            limit.promises.booking_late(booking.id, booking.execute_at, full.at)
            return Refused(
                reason=Reason.WINDOW_FULL, subject=limit.name, retry_at=full.at, window_ns=full.window_ns
            )
        limit.promises.booking_kept(booking.id, booking.execute_at)
        self._forget_booking(booking)
        self._ledger.end_request(booking.worker, booking.request_id, now)
        # Claimed before its last moment, it leaves the windows sooner than it was to.
        self._ledger.freed.append(limit.key)
        return self._take(limit, command, booking.count, now)

    def record_usage(self, command: RecordUsage, now: int) -> UsageRecorded:
        """Settle a permit.

        Charge it now rather than at its latest possible use, or not at all if nothing was sent.
        """
        limit = self.limit(command.endpoint)
        permit = self._ledger.live.get(command.id)
        if not isinstance(permit, Permit):
            self._ledger.ended(command.id, "permit")
        elif (permit.worker, permit.endpoint) != (command.worker, command.endpoint):
            raise not_holder("permit", command.id, command.worker)
        # Also of a report that comes too late to settle anything: just then upstream may be in trouble.
        limit.violations += command.status_code == _TOO_MANY_REQUESTS
        if not isinstance(permit, Permit) or permit.use_by <= now:
            # It may have been used at the last moment, where it is charged.
            self._hear(limit, command, None, now)
            return UsageRecorded(permit=None)
        refunded = 0 if command.is_sent else permit.count
        used = permit.count - refunded
        limit.windows.settle(permit.worker, used, refunded, permit.use_by, now, priority=permit.priority)
        self._end(permit, now)
        self._hear(limit, command, permit, now)
        if limit.shares is not None and command.is_sent:
            limit.shares.reported(permit.worker, now, is_success=command.is_success)
        # Even a permit that was used may have left a window that it would have been in at its use_by.
        self._ledger.freed.append(limit.key)
        return UsageRecorded(permit=permit, refunded=refunded)

    def book(self, command: ScheduleRequest, rank: Rank, now: int) -> Booked:
        """Book the earliest time, after those in the queue who go before."""
        limit = self.limit(command.endpoint)
        windows = limit.windows
        check_count(limit.name, command.count, windows, limit.headroom, command.priority)
        if len(windows.bookings) >= BOOKINGS_PER_LIMIT_MAX:
            raise ResourceExhausted(
                "TOO_MANY_BOOKINGS",
                f"{limit.name} has {BOOKINGS_PER_LIMIT_MAX} bookings.",
                endpoint=limit.name,
            )
        booking = self._place(limit, command, rank, now)
        windows.book(booking)
        self._ledger.live[booking.id] = booking
        self._ledger.deadlines.schedule(booking, booking.claim_until)
        self._changed_bookings[booking.id] = booking
        if command.request_id:
            self._ledger.requests[(command.worker, command.request_id)] = booking
        return Booked(booking=booking)

    def same_booking(self, command: ScheduleRequest, earlier: object) -> Booking:
        """Check that `earlier`, under the same request id, is what `command` asks for, and return it."""
        if not isinstance(earlier, Booking) or (earlier.endpoint, earlier.count) != (
            command.endpoint,
            command.count,
        ):
            raise request_id_reused(command.request_id)
        return earlier

    def cancel(self, command: CancelSchedule, now: int) -> BookingCancelled:
        """Give a booking back."""
        booking = self._own_booking(command.id, command.worker, now)
        if booking is not None:
            self.lapse(booking, now)
        return BookingCancelled(booking=booking)

    def lapse(self, booking: Booking, now: int) -> None:
        """End a booking unclaimed."""
        limit = self._limits[booking.endpoint]
        limit.windows.unbook(booking)
        self._forget_booking(booking)
        self._ledger.end_request(booking.worker, booking.request_id, now)
        self._ledger.freed.append(limit.key)

    def expire(self, limit: Limit, now: int) -> list[Permit]:
        """Drop the permits whose time has passed, at most `DUE_PER_TICK_MAX`.

        They stay charged. Return them.
        """
        due = [permit for permit in islice(limit.open.values(), DUE_PER_TICK_MAX) if permit.use_by <= now]
        for permit in due:
            self._end(permit, now)
            self._give_up(limit, permit)
        if limit.open:
            oldest = next(iter(limit.open.values()))
            self._ledger.deadlines.schedule(limit, max(oldest.use_by, now))
        return due

    def undo(self, permit: Permit, now: int) -> None:
        """Take back a permit nobody heard of."""
        limit = self._limits[permit.endpoint]
        limit.windows.settle(permit.worker, 0, permit.count, permit.use_by, now, priority=permit.priority)
        self._drop(permit)
        self._give_up(limit, permit)
        self._ledger.freed.append(limit.key)

    # -- recovery and views ----------------------------------------------------------------------------------

    def load(self, permit: Permit) -> None:
        """Take an open permit in as it was stored; permits come in the order in which they were given."""
        self._open(self._limits[permit.endpoint], permit)

    def load_gate(self, gate: Gate) -> None:
        """Take a gate in as it was stored, after the permits."""
        limit = self._limits.get(gate.endpoint)
        if limit is None:
            self._gates.forget(gate.endpoint)
        else:
            self._gates.load(limit, gate)

    def load_learned(self, learned: LearnedLimit) -> None:
        """Take a learnt limit in as it was stored, after operators' changes."""
        self._upstream.load_limit(self._limits.get(_name(learned.subject)), learned)

    def load_foreign(self, usage: ForeignUsage, now: int) -> None:
        """Take in, as it was stored, what others use."""
        self._upstream.load_foreign(self._limits.get(_name(usage.subject)), usage, now)

    def gates(self) -> list[Gate]:
        """Return the gate of every endpoint of which upstream has refused a call."""
        return [limit.gate for limit in self if limit.gate is not None]

    def heed_operator(self, limit: Limit, lengths_ns: Iterable[int], now: int) -> None:
        """Forget what upstream taught of some windows, and let the next call find out anew."""
        self._upstream.forget(limit, lengths_ns)
        if limit.gate is not None:
            self._gates.end_pause(limit.gate, now)

    def shut_gates(self) -> tuple[Gate, ...]:
        """Return copies of the gates that are not open, as they are now."""
        return tuple(replace(gate) for gate in self.gates() if gate.closed_until)

    def learned(self) -> list[LearnedLimit]:
        """Return every limit that upstream tells otherwise than the configuration."""
        return [learned for limit in self for learned in limit.lessons.limits.values()]

    def foreign(self) -> list[ForeignUsage]:
        """Return what others were last seen to use."""
        return [usage for limit in self for usage in limit.lessons.foreign.values()]

    def load_forecast(self, record: Forecast) -> None:
        """Take in what was learnt of a class's demand, as it was stored; drop it where nobody asks for it."""
        endpoint = record.subject.partition("/")[2]
        forecasts = self._limits[endpoint].forecasts if endpoint in self._limits else None
        if forecasts is not None:
            forecasts.load(record)
        else:
            self._ledger.changes.of[Table.FORECASTS][(record.subject, record.priority)] = None

    def load_paces(self, now: int) -> None:
        """Find where each pace stands, once all charges are taken in."""
        for limit in self:
            if limit.pace is not None:
                limit.pace.load(now)

    def forecasts(self) -> Iterator[Forecast]:
        """Return what was learnt of each endpoint's demand."""
        for limit in self:
            if limit.forecasts is not None:
                yield from limit.forecasts.records()

    def pending(self) -> list[tuple[object, ...]]:
        """Return what decisions depend on and no record holds.

        That is demand not yet learnt from, paces, and what upstream's headers are evidence of.
        """
        return [
            (
                limit.name,
                limit.forecasts.pending() if limit.forecasts is not None else (),
                limit.pace.free_at if limit.pace is not None else 0,
                limit.lessons.evidence(),
            )
            for limit in self
        ]

    def load_booking(self, booking: Booking) -> None:
        """Take an open booking in as it was stored."""
        self._limits[booking.endpoint].windows.book(booking)
        self._ledger.live[booking.id] = booking
        self._ledger.deadlines.schedule(booking, booking.claim_until)

    def view(self, limit: Limit, now: int) -> LimitView:
        """Return how full an endpoint's windows are."""
        return LimitView(
            name=limit.name,
            windows=window_views(limit.windows, now),
            is_fair=limit.rule.is_fair,
            use_within_ns=limit.rule.use_within_ns,
            claim_window_ns=limit.rule.claim_window_ns,
            queued=self._queues.length(limit.key),
            bookings=len(limit.windows.bookings),
            active_workers=(
                len(limit.shares.active()) if limit.shares is not None else len(limit.windows.of[0].workers())
            ),
            violations=limit.violations,
            is_overridden=is_overridden(limit.windows, limit.rule),
            gate=self._gates.view(limit, now),
            learned=tuple(learned for _, learned in sorted(limit.lessons.limits.items())),
            malformed_headers=limit.lessons.malformed,
            forecasts=tuple(forecast_views(limit, now)),
            scheduling_error_ns=limit.promises.error_ns,
        )

    def allocation(self, limit: Limit, worker: str, now: int) -> AllocationView:
        """Return a worker's part of each window: of a fair limit by max-min, else all of it."""
        if limit.shares is None:
            return undivided(limit.windows, worker, now)
        return Allocations(limit.shares, limit.windows, now, worker).of(worker)

    def allocations(self, limit: Limit, now: int, *, after: str, count: int) -> list[AllocationView]:
        """Return the parts of `count` of the workers that share an endpoint now, by name, `after` one."""
        if limit.shares is None:
            return []
        allocations = Allocations(limit.shares, limit.windows, now)
        workers = [sharer.worker for sharer in allocations.sharers if sharer.worker > after]
        return [allocations.of(worker) for worker in workers[:count]]

    # --------------------------------------------------------------------------------------------------------

    def _take(self, limit: Limit, command: TakePermit, count: int, now: int) -> Permit:
        permit = Permit(
            id=self._ledger.next_id(),
            endpoint=limit.name,
            worker=command.worker,
            count=count,
            granted_at=now,
            use_by=limit.windows.take(command.worker, count, now, command.priority),
            request_id=command.request_id,
            priority=command.priority,
        )
        if limit.pace is not None:
            limit.pace.take(count, now)
        self._open(limit, permit)
        if limit.gate is not None:
            self._gates.let_through(limit.gate, permit)
        self._changed[permit.id] = permit
        if limit.shares is not None:
            limit.shares.given(permit.worker, count, permit.priority, now)
        return permit

    def _give_up(self, limit: Limit, permit: Permit) -> None:
        if limit.gate is not None:
            self._gates.give_up(limit, limit.gate, permit)

    def _hear(self, limit: Limit, command: RecordUsage, permit: Permit | None, now: int) -> None:
        """Take in what upstream answered. Args: permit: that of the call, if it was settled just now."""
        pause_ns = NOT_TOLD
        if command.headers and command.is_sent:
            told = parse(command.headers, now, limit.rule.reset_form)
            pause_ns = self._upstream.learn(limit, told, permit, now)
        if command.status_code or limit.gate is not None:
            self._gates.report(limit, command, pause_ns, now)
        if permit is None:
            # A settled one frees its key anyway; this may have opened the gate, or raised a limit.
            self._ledger.freed.append(limit.key)

    def _open(self, limit: Limit, permit: Permit) -> None:
        self.permits += 1
        self._ledger.live[permit.id] = permit
        limit.open[permit.id] = permit
        limit.in_flight += permit.count
        if not limit.scheduled_at:
            self._ledger.deadlines.schedule(limit, permit.use_by)

    def _end(self, permit: Permit, now: int) -> None:
        self._drop(permit)
        self._ledger.end_request(permit.worker, permit.request_id, now)

    def _drop(self, permit: Permit) -> None:
        self.permits -= 1
        del self._ledger.live[permit.id]
        limit = self._limits[permit.endpoint]
        del limit.open[permit.id]
        limit.in_flight -= permit.count
        if self._ledger.members:
            self._ledger.part(permit.id)
        self._changed[permit.id] = None

    def _own_booking(self, id: int, worker: str, now: int) -> Booking | None:
        booking = self._ledger.live.get(id)
        if not isinstance(booking, Booking):
            self._ledger.ended(id, "booking")
            return None
        if booking.worker != worker:
            raise not_holder("booking", id, worker)
        return booking if booking.claim_until > now else None

    def _forget_booking(self, booking: Booking) -> None:
        self._limits[booking.endpoint].promises.forget(booking.id)
        del self._ledger.live[booking.id]
        self._ledger.deadlines.cancel(booking)
        self._changed_bookings[booking.id] = None

    def _place(self, limit: Limit, command: ScheduleRequest, rank: Rank, now: int) -> Booking:
        rule = limit.rule
        hold_ns = rule.claim_window_ns + rule.use_within_ns
        ahead = self._queues.units_before(limit.key, rank)
        start = now + command.not_before_ns
        if limit.pace is not None:
            start = max(start, limit.pace.begins_at(command.priority, ahead))
        if limit.gate is not None:
            start = max(start, limit.gate.closed_until)
        if ahead:
            execute_at = _earliest_behind(limit, ahead, command, start, now)
        else:
            execute_at = _earliest_slot(limit, command, start, now)
        if execute_at - now > self._horizon_ns:
            raise OutOfRange(
                "BEYOND_HORIZON",
                f"The earliest time is {spell_length(execute_at - now)} from now; bookings go "
                f"{spell_length(self._horizon_ns)} ahead.",
                endpoint=limit.name,
                earliest_s=(execute_at - now) // SECOND,
            )
        return Booking(
            id=self._ledger.next_id(),
            endpoint=limit.name,
            worker=command.worker,
            count=command.count,
            booked_at=now,
            execute_at=execute_at,
            claim_until=execute_at + rule.claim_window_ns,
            use_by=execute_at + hold_ns,
            request_id=command.request_id,
        )


def _earliest_slot(limit: Limit, command: ScheduleRequest, start: int, now: int) -> int:
    """Return the earliest time for a booking from `start` on; where they are paced, between the others."""
    windows, rule, count, priority = limit.windows, limit.rule, command.count, command.priority
    hold_ns = rule.claim_window_ns + rule.use_within_ns
    kept = limit.kept_at(start, priority, count, now)
    while True:
        slot = start
        if limit.pace is not None and priority < CRITICAL:
            slot = limit.pace.slot(count, start)
        start = windows.earliest(count, slot, hold_ns, now, kept, since=now).at
        if start == slot:
            return start


def _earliest_behind(limit: Limit, ahead: int, command: ScheduleRequest, start: int, now: int) -> int:
    """Return the earliest time for a booking behind those in the queue who want `ahead`.

    Booking is no way round the queue: those who go before are given their permits first. When all of them
    will have been served is an estimate; but the next ones' room is set aside while a time is sought, so that
    no booking ever delays them, however many come.
    """
    windows, rule, count = limit.windows, limit.rule, command.count
    hold_ns = rule.claim_window_ns + rule.use_within_ns
    kept = limit.kept_at(start, command.priority, count, now)
    next_ones = min(ahead, windows.smallest())
    served_at = windows.earliest(next_ones, now, rule.use_within_ns, now).at
    start = windows.earliest(ahead + count, max(start, served_at), hold_ns, now, kept, since=now).at
    use_by = served_at + rule.use_within_ns
    aside = Booking(0, limit.name, "", next_ones, now, served_at, served_at, use_by)
    windows.book(aside)
    execute_at = _earliest_slot(limit, command, start, now)
    windows.unbook(aside)
    return execute_at


def _too_early(booking: Booking) -> Refused:
    return Refused(reason=Reason.BOOKING_EARLY, subject=booking.endpoint, retry_at=booking.execute_at)


def _name(subject: str) -> str:
    return subject.partition("/")[2]


def windows_of(name: str, rule: LimitRule, ledger: Ledger) -> Windows:
    """Return the windows of a rule; such as know who uses them, if that is asked for."""
    is_shared = rule.is_fair or bool(rule.headroom)
    window_type = SharedWindow if is_shared else Window
    return Windows(name, rule.windows, rule.use_within_ns, ledger.changes.cells, window_type)


def order_of(
    key: QueueKey,
    rule: LimitRule | PoolRule,
    headroom: Headroom | None,
    used: Used,
    *,
    queues: Queues,
    sharing: Sharing,
) -> Shares | None:
    """Give a queue the order that its rule asks for; return the shares, or None if workers do not share."""
    if rule.is_fair:
        return sharing.share(key, rule.share, used, has_headroom=headroom is not None)
    if headroom is not None:
        queues.orders[key] = ClassQueue(has_headroom=True)
    return None


def headroom_of(rule: LimitRule | PoolRule, forecasts: Forecasts | None = None) -> Headroom | None:
    """Return the headroom of a rule, or None if no class must leave anything to others."""
    if not rule.headroom and forecasts is None:
        return None
    forecast_max = rule.forecast_max if isinstance(rule, LimitRule) else 0.0
    return Headroom(rule.headroom, forecasts, forecast_max)


def check_count(name: str, count: int, windows: Windows, headroom: Headroom | None, priority: int) -> None:
    """Check that a class can ever take `count` at once. Raises: OutOfRange (PERMITS_ABOVE_LIMIT)."""
    largest = windows.smallest() if headroom is None else headroom.largest(priority, windows)
    if count > largest:
        raise OutOfRange(
            "PERMITS_ABOVE_LIMIT",
            f"{count} are more than {name} ever allows at once: {largest}.",
            name=name,
            count=count,
            limit=largest,
        )


def blocked_by_windows(
    windows: Windows,
    headroom: Headroom | None,
    count: int,
    rank: Rank,
    now: int,
    *,
    key: QueueKey,
    queues: Queues,
    pace: Pace | None = None,
) -> Blocked | None:
    """Return what blocks taking `count`: a full window, headroom, pace, those ahead in the queue; or None."""
    kept = headroom.kept(rank[2], windows, now, count) if headroom is not None else None
    begins_at = pace.begins_at(rank[2]) if pace is not None else 0
    is_behind = bool(queues.units) and queues.is_ahead(key, rank, now)
    if is_behind and headroom is not None:
        wants = queues.first_wants(key, now)
        ahead = {class_: wants.get(class_, 1) for class_ in queues.classes_ahead(key, rank, now)}
        is_behind = not headroom.may_pass(count, ahead, rank[2], windows, now)
    aside = queues.units_aside(key, rank) if queues.aside else 0
    if not is_behind and begins_at <= now and windows.is_room(count + aside, now, kept):
        return None
    check_count(key[1], count, windows, headroom, rank[2])
    full = windows.earliest(count, max(now, begins_at), windows.use_within_ns, now, kept)
    changes_at = headroom.changes_at(now) if headroom is not None and kept else 0
    blocked = Blocked(
        reason=_reason(windows, count, kept, now),
        subject=key[1],
        key=key,
        retry_at=full.at,
        frees_at=_sooner(full.at, changes_at),
        window_ns=full.window_ns,
    )
    if is_behind:
        return _behind(blocked, windows, count, rank, now, kept=kept, queues=queues, pace=pace)
    if aside:
        later = windows.earliest(count + aside, max(now, begins_at), windows.use_within_ns, now, kept)
        return _beside(blocked, later, now, changes_at)
    return blocked


def least_wait(
    windows: Windows, count: int, rank: Rank, blocked: Blocked, now: int, *, queues: Queues
) -> int:
    """Return how long whoever is `blocked` will wait at least, if nothing comes back early.

    Exact for the first in the queue. Of the others the estimate may be more than they will wait, so those
    ahead are counted as if each window were the only one.
    """
    ahead = queues.units_ahead(blocked.key, rank, now)
    if not ahead:
        return max(0, blocked.retry_at - now)
    return windows.no_sooner(ahead + count, now) - now


def _reason(windows: Windows, count: int, kept: Kept | None, now: int) -> Reason:
    """Return what blocks whoever is first, if not the mere passing of time does: then it is the pace."""
    if not windows.is_room(count, now):
        return Reason.WINDOW_FULL
    return Reason.PACED if windows.is_room(count, now, kept) else Reason.HEADROOM


def _beside(first: Blocked, later: Full, now: int, changes_at: int) -> Blocked:
    """Return what blocks one that must leave room to those for whom it is set aside, until `later`."""
    is_full = first.retry_at > now
    return Blocked(
        reason=first.reason if is_full else Reason.QUEUED_AHEAD,
        subject=first.subject,
        key=first.key,
        retry_at=later.at,
        frees_at=_sooner(later.at, changes_at),
        window_ns=later.window_ns if is_full else 0,
    )


def _behind(
    first: Blocked,
    windows: Windows,
    count: int,
    rank: Rank,
    now: int,
    *,
    kept: Kept | None,
    queues: Queues,
    pace: Pace | None,
) -> Blocked:
    """Return what blocks one that is behind others, and would be blocked by `first` if it were not.

    If there is room, those ahead block it.
    """
    ahead = queues.units_ahead(first.key, rank, now)
    begins_at = pace.begins_at(rank[2], ahead) if pace is not None else 0
    later = windows.earliest(ahead + count, max(now, begins_at), windows.use_within_ns, now, kept, since=now)
    is_full = first.retry_at > now
    return Blocked(
        reason=first.reason if is_full else Reason.QUEUED_AHEAD,
        subject=first.subject,
        key=first.key,
        retry_at=later.at,
        # Where it may pass those ahead, that may change with whatever leaves.
        frees_at=first.frees_at if is_full else windows.leaves_at(),
        window_ns=later.window_ns if is_full else 0,
    )


def _sooner(at: int, other: int) -> int:
    return min(at, other) if other else at


def window_views(windows: Windows, now: int) -> tuple[WindowView, ...]:
    """Return how full each window is for whoever takes permits now, room for bookings left."""
    windows.roll(now)
    return tuple(
        WindowView(
            length_ns=window.length_ns,
            limit=window.limit,
            used=window.limit - window.room(windows.use_within_ns, now),
            resets_at=window.resets_at(now),
        )
        for window in windows.of
    )


def forecast_views(limit: Limit, now: int) -> Iterator[ForecastView]:
    """Yield what each class is expected to want; the windows are rolled."""
    if limit.forecasts is None or limit.headroom is None:
        return
    fullest = max(limit.windows.of, key=lambda window: window.used / window.limit)
    for priority, rate_ppm in limit.forecasts.rates(now):
        kept = limit.headroom.kept_for(priority, fullest, now)
        yield ForecastView(priority=priority, rate_ppm=rate_ppm, kept=kept)


def is_overridden(windows: Windows, rule: LimitRule) -> bool:
    """Whether an operator has changed a limit from what the configuration says."""
    return any(rule.windows[window.length_ns] != window.configured for window in windows.of)
