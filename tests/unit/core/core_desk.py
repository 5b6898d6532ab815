"""What the tests of core share: default rules, and a desk that drives a machine with a clock of its own."""

from typing import Any

from coordd.core.commands import (
    LeaveWait,
    RecordUsage,
    ReleaseLock,
    ReleaseResource,
    RequestLock,
    ReserveResource,
    ScheduleRequest,
    TakePermit,
)
from coordd.core.errors import CommandError
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.machine import Command, Machine
from coordd.core.outcomes import (
    Granted,
    Notice,
    Queued,
    Refused,
    WaitGranted,
    WaitRefused,
    grant_id,
)
from coordd.core.records import KEY_COLUMNS, Booking, Lock, Permit, Reservation, Row, Table
from coordd.core.rules import KindRule, LimitRule, PoolRule, Rules, TypeRule

# A multiple of every bucket's width below, so that instants in tests can be read.
T0 = 1_790_000_000 * SECOND


def rules_of(**changes: Any) -> Rules:
    """Return rules that are easy to calculate with; `changes` replace whole fields."""
    fields: dict[str, Any] = {
        "kinds": {
            "reply": KindRule(
                ttl_ns=MINUTE, lock_delay_ns=15 * SECOND, min_interval_ns=HOUR, bypass_quality=0.9
            ),
            "like": KindRule(ttl_ns=MINUTE, lock_delay_ns=0),
        },
        "types": {
            "file": TypeRule(ttl_ns=MINUTE),
            "db": TypeRule(ttl_ns=MINUTE, pool="conns"),
            "quota": TypeRule(pools={"tweet": "tweets"}),
            "post": TypeRule(pool="tweets"),
        },
        "pools": {
            "conns": PoolRule(capacity=3),
            "tweets": PoolRule(limit=LimitRule(windows={100 * SECOND: 3}, use_within_ns=10 * SECOND)),
        },
        "limits": {
            "search": LimitRule(
                windows={100 * SECOND: 3, 500 * SECOND: 10},
                use_within_ns=10 * SECOND,
                claim_window_ns=20 * SECOND,
            ),
            "one": LimitRule(
                windows={100 * SECOND: 1}, use_within_ns=10 * SECOND, claim_window_ns=20 * SECOND
            ),
        },
        "request_memory_ns": 10 * MINUTE,
    }
    return Rules(**(fields | changes))


class Desk:
    """A machine, the time, and everything it has given notice of."""

    def __init__(self, rules: Rules | None = None, *, now: int = T0) -> None:
        self.now = now
        self.machine = Machine(rules or rules_of())
        self.machine.recover({}, 0, now)
        self.notices: list[Notice] = []
        self.rows: dict[Table, dict[tuple[Any, ...], Row]] = {table: {} for table in Table}

    def do(self, command: Command) -> Any:
        """Apply a command now. Raises: CommandError, having checked that nothing has changed."""
        self.machine.tick(self.now)
        before = self.machine.digest()
        try:
            outcome = self.machine.apply(command, self.now)
        except CommandError:
            assert self.machine.digest() == before
            raise
        self.notices += self.machine.take_notices()
        return outcome

    def advance(self, by_ns: int) -> list[Notice]:
        """Let time pass, doing what is due when it is due; return what the machine gave notice of."""
        begun, until = len(self.notices), self.now + by_ns
        while True:
            due_at = self.machine.next_deadline()
            if due_at is None or due_at > until:
                break
            self.now = max(self.now, due_at)
            self.machine.tick(self.now)
            self.notices += self.machine.take_notices()
        self.now = until
        self.machine.tick(until)
        return self.notices[begun:]

    def commit(self) -> None:
        """Apply what has changed to the rows."""
        puts, deletes = self.machine.take_changes()
        for table, rows in puts.items():
            self.rows[table].update({row[: KEY_COLUMNS[table]]: row for row in rows})
        for table, keys in deletes.items():
            for key in keys:
                self.rows[table].pop(key, None)

    def restart(self, rules: Rules | None = None, *, down_ns: int = 0) -> None:
        """Go on with a new machine, recovered from the rows."""
        self.commit()
        self.now += down_ns
        tables = {table: [rows[key] for key in sorted(rows)] for table, rows in self.rows.items()}
        tables[Table.ENGAGEMENTS].sort(key=lambda row: (row[5], row[0]))
        last_id = self.machine.last_id
        self.machine = Machine(rules or self.machine.rules)
        self.machine.recover(tables, last_id, self.now)

    # -- what most tests ask for -----------------------------------------------------------------------------

    def lock(self, item: str = "a", worker: str = "w1", kind: str = "like", **more: Any) -> Lock:
        """Take a lock that is free."""
        return self._granted(RequestLock(item=item, kind=kind, worker=worker, **more))  # type: ignore[no-any-return]

    def release(self, lock: Lock, outcome: int = 1) -> Any:
        """Give a lock back."""
        return self.do(ReleaseLock(item=lock.item, worker=lock.worker, token=lock.token, outcome=outcome))

    def reserve(self, type: str = "db", worker: str = "w1", **more: Any) -> Reservation:
        """Make a reservation that can be made."""
        return self._granted(ReserveResource(type=type, worker=worker, **more))  # type: ignore[no-any-return]

    def give_back(self, reservation: Reservation, unused_units: int = 0) -> Any:
        """Give a reservation back."""
        return self.do(
            ReleaseResource(id=reservation.id, worker=reservation.worker, unused_units=unused_units)
        )

    def permit(self, endpoint: str = "search", worker: str = "w1", **more: Any) -> Permit:
        """Take a permit that can be had."""
        return self._granted(TakePermit(endpoint=endpoint, worker=worker, **more))  # type: ignore[no-any-return]

    def report(
        self, permit: Permit, *, is_sent: bool = True, is_success: bool | None = None, **more: Any
    ) -> Any:
        """Settle a permit."""
        usage = RecordUsage(
            endpoint=permit.endpoint,
            worker=permit.worker,
            id=permit.id,
            is_sent=is_sent,
            is_success=is_sent if is_success is None else is_success,
            **more,
        )
        return self.do(usage)

    def book(self, endpoint: str = "search", worker: str = "w1", **more: Any) -> Booking:
        """Book a time."""
        booking: Booking = self.do(ScheduleRequest(endpoint=endpoint, worker=worker, **more)).booking
        return booking

    def wait(self, command: RequestLock | ReserveResource | TakePermit) -> int:
        """Begin to wait, and return the waiter's id."""
        outcome = self.do(command)
        assert isinstance(outcome, Queued), outcome
        return outcome.id

    def leave(self, waiter: int) -> bool:
        """End a wait's stream; return whether the waiter is away rather than gone."""
        is_away: bool = self.do(LeaveWait(id=waiter)).is_away
        return is_away

    def refused(self, command: Command) -> Refused:
        """Apply a command that is refused, and check that nothing has changed."""
        self.machine.tick(self.now)
        before = self.machine.digest()
        outcome = self.do(command)
        assert isinstance(outcome, Refused), outcome
        assert self.machine.digest() == before
        return outcome

    def error(self, command: Command) -> str:
        """Apply a command that is broken, and return the reason."""
        try:
            outcome = self.do(command)
        except CommandError as error:
            return error.reason
        raise AssertionError(f"not an error: {outcome}")

    def granted(self, waiter: int) -> Any:
        """Return what a waiter was granted, or None."""
        grants = [n.grant for n in self.notices if isinstance(n, WaitGranted) and n.waiter.id == waiter]
        return grants[0] if grants else None

    def refusal(self, waiter: int) -> Refused | None:
        """Return how a waiter's wait was refused, or None."""
        refusals = [n.refused for n in self.notices if isinstance(n, WaitRefused) and n.waiter.id == waiter]
        return refusals[0] if refusals else None

    def _granted(self, command: Command) -> Any:
        outcome = self.do(command)
        assert isinstance(outcome, Granted), outcome
        assert grant_id(outcome.grant) <= self.machine.last_id
        return outcome.grant
