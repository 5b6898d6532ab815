"""Bookings: permits promised for a later time.

Owns: each endpoint's bookings, from when they are made until they are claimed, cancelled or lapse.
Rules: a booking is the earliest slot that every window has room for, behind those in the queue who go before;
it holds that room until its claim window is over. Claimed at its time it is a permit, whatever others want,
unless upstream, or an operator, has said something new since.
Must not know: how permits are given.
"""

from collections.abc import Mapping

from coordd.core.commands import CancelSchedule, ScheduleRequest, TakePermit
from coordd.core.errors import FailedPrecondition, OutOfRange, ResourceExhausted
from coordd.core.gates import Gates
from coordd.core.ledger import Ledger, not_holder, request_id_reused
from coordd.core.lengths import spell_length
from coordd.core.limit import Limit, limit_of
from coordd.core.limits import BOOKINGS_PER_LIMIT_MAX, SECOND
from coordd.core.outcomes import Booked, BookingCancelled, Reason, Refused
from coordd.core.queues import Queues, Rank
from coordd.core.records import Booking, Table
from coordd.core.rules import CRITICAL, Rules


class Bookings:
    """The bookings of every endpoint."""

    __slots__ = ("_changed", "_gates", "_horizon_ns", "_ledger", "_limits", "_queues")

    def __init__(
        self, rules: Rules, ledger: Ledger, queues: Queues, limits: Mapping[str, Limit], gates: Gates
    ) -> None:
        self._horizon_ns = rules.schedule_horizon_ns
        self._ledger = ledger
        self._queues = queues
        self._limits = limits
        self._gates = gates
        self._changed = ledger.changes.of[Table.BOOKINGS]

    def book(self, command: ScheduleRequest, rank: Rank, now: int) -> Booked:
        """Book the earliest time, after those in the queue who go before."""
        limit = limit_of(self._limits, command.endpoint)
        windows = limit.windows
        limit.blocks.check_count(command.count, command.priority)
        if len(windows.bookings) >= BOOKINGS_PER_LIMIT_MAX:
            raise ResourceExhausted(
                "TOO_MANY_BOOKINGS",
                f"{limit.name} has {BOOKINGS_PER_LIMIT_MAX} bookings.",
                endpoint=limit.name,
            )
        self._ledger.quotas.check_leases(command)
        booking = self._place(limit, command, rank, now)
        windows.book(booking)
        self._ledger.live[booking.id] = booking
        self._ledger.deadlines.schedule(booking, booking.claim_until)
        self._changed[booking.id] = booking
        if limit.forecasts is not None:
            # A class may have to leave more now, so that one above it may pass.
            self._ledger.freed.append(limit.key)
        if command.request_id:
            self._ledger.requests[(command.worker, command.request_id)] = booking
        return Booked(booking=booking)

    def same(self, command: ScheduleRequest, earlier: object) -> Booking:
        """Check that `earlier`, under the same request id, is what `command` asks for, and return it."""
        if not isinstance(earlier, Booking) or (earlier.endpoint, earlier.count) != (
            command.endpoint,
            command.count,
        ):
            raise request_id_reused(command.request_id)
        return earlier

    def cancel(self, command: CancelSchedule, now: int) -> BookingCancelled:
        """Give a booking back."""
        booking = self._own(command.id, command.worker, now)
        if booking is not None:
            self.lapse(booking, now)
        return BookingCancelled(booking=booking)

    def lapse(self, booking: Booking, now: int) -> None:
        """End a booking unclaimed."""
        limit = self._limits[booking.endpoint]
        limit.windows.unbook(booking)
        self._forget(booking)
        self._ledger.end_request(booking.worker, booking.request_id, now)
        self._ledger.freed.append(limit.key)

    def claim(self, command: TakePermit, now: int) -> Booking | Refused:
        """End a booking whose time has come: its permit may be taken, there is room."""
        booking = self._own(command.booking_id, command.worker, now)
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
            # Only after somebody has lowered the limit, or others have used it, since it was booked.
            full = limit.windows.earliest(booking.count, now, limit.rule.use_within_ns, now)
            limit.windows.book(booking)
            limit.promises.booking_late(booking.id, booking.execute_at, full.at)
            return Refused(
                reason=Reason.WINDOW_FULL, subject=limit.name, retry_at=full.at, window_ns=full.window_ns
            )
        limit.promises.booking_kept(booking.id, booking.execute_at)
        self._forget(booking)
        self._ledger.end_request(booking.worker, booking.request_id, now)
        # Claimed before its last moment, it leaves the windows sooner than it was to.
        self._ledger.freed.append(limit.key)
        return booking

    def load(self, booking: Booking) -> None:
        """Take an open booking in as it was stored."""
        self._limits[booking.endpoint].windows.book(booking)
        self._ledger.live[booking.id] = booking
        self._ledger.deadlines.schedule(booking, booking.claim_until)

    # --------------------------------------------------------------------------------------------------------

    def _own(self, id: int, worker: str, now: int) -> Booking | None:
        booking = self._ledger.live.get(id)
        if not isinstance(booking, Booking):
            self._ledger.ended(id, "booking")
            return None
        if booking.worker != worker:
            raise not_holder("booking", id, worker)
        return booking if booking.claim_until > now else None

    def _forget(self, booking: Booking) -> None:
        self._limits[booking.endpoint].promises.forget(booking.id)
        del self._ledger.live[booking.id]
        self._ledger.deadlines.cancel(booking)
        self._changed[booking.id] = None

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
