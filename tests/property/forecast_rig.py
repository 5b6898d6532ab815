"""A machine with one endpoint, a clock, and an upstream that counts what it is called with, by brute force.

Owns: the calls as they arrive upstream, each at some instant between its grant and its report or its last
moment; and the journal of what the machine was told. Shares no line with the core's windows, forecasts or
paces.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from coordd.core.commands import CancelSchedule, RecordUsage, ScheduleRequest, TakePermit
from coordd.core.limits import DAY, HOUR, SECOND
from coordd.core.machine import Command, Machine
from coordd.core.outcomes import Booked, Granted, Queued, Refused, WaitGranted
from coordd.core.records import KEY_COLUMNS, Booking, Permit, Row, Table
from coordd.core.rules import LimitRule, Rules

T0 = 1_790_000_000 * SECOND // HOUR * HOUR


@dataclass
class Call:
    """Calls that one permit allows. `is_booked`: it was a booking's."""

    permit: Permit
    at: int
    is_booked: bool = False
    is_settled: bool = False


class Rig:
    """One endpoint, `e`."""

    def __init__(self, rule: LimitRule, seed: int = 0) -> None:
        self.rules = Rules(kinds={}, types={}, pools={}, limits={"e": rule})
        self.rule = rule
        self.random = Random(seed)
        self.now = T0
        self.machine = Machine(self.rules)
        self.machine.recover({}, 0, T0)
        self.calls: list[Call] = []
        self.bookings: list[Booking] = []
        # Waiter -> (class, since when, when it was told that it would be served).
        self.waiting: dict[int, tuple[int, int, int]] = {}
        # (class, how long it waited).
        self.waited: list[tuple[int, int]] = []
        self.journal: list[tuple[int, Command | None]] = []
        self.rows: dict[Table, dict[tuple[Any, ...], Row]] = {table: {} for table in Table}

    # -- driving ---------------------------------------------------------------------------------------------

    def take(self, priority: int, count: int = 1, wait_ns: int = DAY) -> Any:
        """Ask for permits."""
        command = TakePermit(
            endpoint="e", worker=f"w{priority}", priority=priority, count=count, wait_ns=wait_ns
        )
        outcome = self.do(command)
        if isinstance(outcome, Granted):
            self.waited.append((priority, 0))
            self._permitted(outcome.grant)
        elif isinstance(outcome, Queued):
            place = self.machine.place(outcome.id, self.now)
            assert place is not None
            self.waiting[outcome.id] = (priority, self.now, self.now + (place.wait_ns or 0))
        self.hear()
        return outcome

    def book(self, priority: int, count: int = 1, not_before_ns: int = 0) -> Booking:
        """Book a time."""
        command = ScheduleRequest(
            endpoint="e", worker="w", priority=priority, count=count, not_before_ns=not_before_ns
        )
        outcome = self.do(command)
        assert isinstance(outcome, Booked)
        self.bookings.append(outcome.booking)
        return outcome.booking

    def claim(self, booking: Booking) -> Any:
        """Claim a booking."""
        outcome = self.do(TakePermit(endpoint="e", worker="w", booking_id=booking.id))
        if isinstance(outcome, Granted):
            self.bookings.remove(booking)
            self._permitted(outcome.grant, is_booked=True)
        self.hear()
        return outcome

    def cancel(self, booking: Booking) -> None:
        """Give a booking back."""
        self.bookings.remove(booking)
        self.do(CancelSchedule(id=booking.id, worker="w"))
        self.hear()

    def report(self, call: Call, *, is_sent: bool = True) -> None:
        """Report a call, made at some instant since its grant, or never."""
        call.is_settled = True
        permit = call.permit
        if is_sent:
            call.at = self.random.randint(permit.granted_at, self.now)
        else:
            self.calls.remove(call)
        self.do(RecordUsage(
            endpoint="e", worker=permit.worker, id=permit.id, is_sent=is_sent, is_success=is_sent
        ))  # fmt: skip
        self.hear()

    def do(self, command: Command) -> Any:
        """Apply a command; a refusal must change nothing."""
        self.journal.append((self.now, command))
        before = self.machine.digest() if self.random.random() < 0.02 else None
        outcome = self.machine.apply(command, self.now)
        if isinstance(outcome, Refused) and before is not None:
            assert self.machine.digest() == before
        return outcome

    def advance(self, to: int) -> None:
        """Let time pass; what is due is done when it is due."""
        while (due_at := self.machine.next_deadline()) is not None and due_at <= to:
            self.now = max(self.now, due_at)
            self._tick()
        self.now = to
        self._tick()

    def hear(self) -> None:
        """Take in who was served."""
        for notice in self.machine.take_notices():
            if isinstance(notice, WaitGranted):
                priority, since, _ = self.waiting.pop(notice.waiter.id)
                self.waited.append((priority, self.now - since))
                assert isinstance(notice.grant, Permit)
                self._permitted(notice.grant)

    def open(self) -> list[Call]:
        """Return the calls that can still be reported."""
        return [call for call in self.calls if not call.is_settled and call.permit.use_by > self.now]

    def commit(self) -> None:
        """Apply what has changed to the rows."""
        puts, deletes = self.machine.take_changes()
        for table, rows in puts.items():
            self.rows[table].update({row[: KEY_COLUMNS[table]]: row for row in rows})
        for table, keys in deletes.items():
            for key in keys:
                self.rows[table].pop(key, None)

    def restart(self, down_ns: int = 0) -> None:
        """Go on with a machine recovered from the rows; whoever waits is gone, having no request id."""
        self.commit()
        last_id = self.machine.last_id
        self.now += down_ns
        self.machine = Machine(self.rules)
        tables = {table: [rows[key] for key in sorted(rows)] for table, rows in self.rows.items()}
        self.machine.recover(tables, last_id, self.now)
        self.journal.clear()
        self.waiting.clear()
        self.advance(self.now)

    def replay(self) -> Machine:
        """Return a new machine that was told the same."""
        machine = Machine(self.rules)
        machine.recover({}, 0, T0)
        for now, command in self.journal:
            if command is None:
                machine.tick(now)
            else:
                machine.apply(command, now)
        return machine

    def _tick(self) -> None:
        self.machine.tick(self.now)
        self.journal.append((self.now, None))
        self.hear()

    def _permitted(self, permit: Permit, *, is_booked: bool = False) -> None:
        self.calls.append(Call(permit, self.random.randint(permit.granted_at, permit.use_by), is_booked))

    # -- judging ---------------------------------------------------------------------------------------------

    def check_windows(self) -> None:
        """Check that upstream has never counted more than a window's limit within any of its length."""
        arrivals = sorted(call.at for call in self.calls for _ in range(call.permit.count))
        for length_ns, limit in self.rule.windows.items():
            for first, last in zip(arrivals, arrivals[limit:], strict=False):
                assert last - first >= length_ns, f"{limit + 1} calls within {last - first} ns"

    def check_nobody_left_behind(self) -> None:
        """Check that whoever is first waits for something that is yet to come."""
        for waiter in list(self.waiting):
            place = self.machine.place(waiter, self.now)
            if place is None:
                # Its wait has timed out.
                del self.waiting[waiter]
            elif place.position == 1:
                assert place.blocked_by.retry_at > self.now, f"left behind: {place}"

    def check_pace(self, is_held_up: Any, slack_ns: int) -> None:
        """Check that every call that is paced came its intervals after each that was permitted before it."""
        interval_ns = max(-(-length_ns // limit) for length_ns, limit in self.rule.windows.items())
        permits = sorted((call.permit.granted_at, call.permit.id, call) for call in self.calls)
        for index, (at, _, call) in enumerate(permits):
            units = 0
            for before, _, other in reversed(permits[:index]) if is_held_up(call) else ():
                units += other.permit.count
                assert at >= before + units * interval_ns - slack_ns

    def waits(self, priority: int) -> Iterator[int]:
        """Return how long those of a class waited, in ns."""
        return (waited for class_, waited in self.waited if class_ == priority)


class SlowRate:
    """A class's rate, bin by bin and hour by hour, the idle ones included, in floating point."""

    def __init__(self) -> None:
        self.number = 0
        self._level = 0.0
        self._hours: list[float | None] = [None] * 24
        self._factors = [1.0] * 24
        self._count_of_hour = 0
        self._is_whole_hour = False

    def bin(self, count: int) -> None:
        """Take in the next bin of 10 s."""
        hour = self.number // 360 % 24
        if self.number % 360 == 0:
            self._begin_hour(hour - 1, is_first=self.number == 0 and count == 0)
        factor = self._factors[hour]
        self._level += 0.011486 * (count / 10 - factor * self._level) / max(1, factor)
        self._count_of_hour += count
        self.number += 1

    def expected(self) -> float:
        """Return the calls a second that are expected now."""
        return self._level * self._factors[self.number // 360 % 24]

    def _begin_hour(self, ended: int, *, is_first: bool) -> None:
        if self._is_whole_hour:
            self._learn(ended)
        self._is_whole_hour = not is_first
        self._count_of_hour = 0

    def _learn(self, hour: int) -> None:
        rate, known = self._count_of_hour / 3600, self._hours[hour]
        self._hours[hour] = rate if known is None else known + (rate - known) / 4
        seen = [each for each in self._hours if each is not None]
        if len(seen) == 24 and sum(seen):
            before, self._factors = self._factors, [each * 24 / sum(seen) for each in seen]
            if before[hour] and self._factors[hour]:
                self._level *= before[hour] / self._factors[hour]
