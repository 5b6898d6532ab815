"""A machine and a naive model side by side: every outcome, notice and record is checked against the model.

Owns: the clock, the machine, the model, a store of rows fed by `take_changes`, and the journal of all that
was done.
"""

from collections.abc import Callable, Hashable
from copy import deepcopy
from itertools import pairwise
from typing import Any, ClassVar

from naive_model import Block, Broken, HeldLock, Holding, Model, OpenPermit, Slot, Waiting

from coordd.core.commands import (
    CancelSchedule,
    ForceRelease,
    LeaveWait,
    RecordUsage,
    ReleaseLock,
    ReleaseResource,
    RenewLock,
    RenewReservation,
    RequestLock,
    ReserveResource,
    ScheduleRequest,
    TakePermit,
    UpdateLimit,
    UpdatePool,
)
from coordd.core.errors import CommandError
from coordd.core.limits import SECOND
from coordd.core.machine import Command, Machine
from coordd.core.outcomes import (
    Booked,
    BookingCancelled,
    Expired,
    Forced,
    Granted,
    GrantReturned,
    LockReleased,
    Queued,
    Reason,
    Refused,
    Renewed,
    ResourceReleased,
    Updated,
    UsageRecorded,
    WaiterLeft,
    WaitGranted,
    WaitRefused,
    grant_id,
)
from coordd.core.records import KEY_COLUMNS, EndedBy, Outcome, Row, Table
from coordd.core.rules import Rules
from coordd.core.waiters import ReturnGrant, Waiter

T0 = 1_790_000_000 * SECOND
# What the model leaves open in an answer.
ANY = object()
Answer = tuple[Any, ...]


class Harness:
    """One machine under test."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.now = T0
        self.machine = Machine(rules)
        self.machine.recover({}, 0, T0)
        self.model = Model(rules, self.machine.last_id)
        self.store: dict[Table, dict[tuple[Any, ...], Row]] = {table: {} for table in Table}
        # (instant, command or None for a tick, answer): what a fresh machine must repeat.
        self.journal: list[tuple[int, Command | None, str]] = []
        # Waiters whose grant nobody has heard of yet, by the grant's id.
        self.unheard: dict[int, Waiter] = {}
        # Endpoints whose limit an operator has lowered: bookings made before may have lost their room.
        self.lowered: set[str] = set()

    # -- driving ---------------------------------------------------------------------------------------------

    def do(self, command: Command) -> Any:
        """Apply a command, check its answer and all that follows, and return it (None: an error)."""
        expected = self._expect(command)
        # A waiter goes on living, and a journal must not: copy it as it is now.
        recorded = deepcopy(command)
        before = self.machine.digest()
        outcome: Any = None
        try:
            outcome = self.machine.apply(command, self.now)
            answer = describe(outcome)
        except CommandError as error:
            answer = ("error", error.reason)
        assert matches(expected, answer), f"{command}: expected {expected}, got {answer}"
        self.journal.append((self.now, recorded, repr(answer) if outcome is None else told(outcome)))
        if answer[0] in ("error", "refused") and expected[0] != "refused for good":
            assert self.machine.digest() == before, f"{command} was refused and yet changed something"
        else:
            self._note(command, outcome)
        self.model.note_presence(self.now)
        self._take_notices()
        if isinstance(command, ReturnGrant):
            # The waiter that has its place back may be due by now.
            self.advance(self.now)
        self._settled()
        return outcome

    def advance(self, to: int, *, is_late: bool = False) -> None:
        """Let time pass, doing all that is due when it is due, or, late, all at the end."""
        while True:
            due_at = self.machine.next_deadline()
            if due_at is None or due_at > to:
                break
            self.now = to if is_late else max(self.now, due_at)
            self.machine.tick(self.now)
            self.journal.append((self.now, None, ""))
            self._take_notices()
        self.now = to
        # With nothing due, this only tells the machine the time, of which its digest is.
        self.machine.tick(to)
        self.journal.append((to, None, ""))
        self._settled()

    def commit(self) -> None:
        """Apply what has changed to the store."""
        puts, deletes = self.machine.take_changes()
        for table, rows in puts.items():
            keys = {row[: KEY_COLUMNS[table]] for row in rows}
            assert len(keys) == len(rows), "a key twice in a batch"
            assert not keys & set(deletes.get(table, ())), "a key both put and deleted"
            self.store[table].update({row[: KEY_COLUMNS[table]]: row for row in rows})
        for table, gone in deletes.items():
            for key in gone:
                assert len(key) == KEY_COLUMNS[table]
                self.store[table].pop(key, None)
        assert not self.machine.has_changes

    def restart(self, down_ns: int) -> None:
        """Commit, check that the store holds the truth, and go on with a machine recovered from it."""
        self.commit()
        self.check_store()
        self.now += down_ns
        history = sorted(self.store[Table.ENGAGEMENTS].values(), key=lambda row: (row[5], row[0]))
        since = self.now - down_ns - self.machine.history_ns
        tables: dict[Table, list[Row]] = {
            table: [rows[key] for key in sorted(rows)] for table, rows in self.store.items()
        }
        tables[Table.ENGAGEMENTS] = [row for row in history if int(row[5]) >= since]
        former = self.machine.last_id
        self.machine = Machine(self.rules)
        self.machine.recover(tables, former, self.now)
        assert self.machine.last_id >= former
        self.journal.clear()
        self._note_restart()
        self.advance(self.now)

    def check_store(self) -> None:
        """Check that the store holds exactly what the machine holds, history and recovered leases aside."""
        snapshot = self.machine.snapshot()
        # Making it has dropped the charges that have left their windows.
        self.commit()
        for table, rows in snapshot.items():
            stored = self.store[table]
            if table == Table.ENGAGEMENTS:
                assert all(stored[row[:1]] == row for row in rows)
            elif table in (Table.LOCKS, Table.RESERVATIONS):
                lease = {Table.LOCKS: 5, Table.RESERVATIONS: 7}[table]
                assert [r[:lease] + r[lease + 1 :] for r in rows] == [
                    r[:lease] + r[lease + 1 :] for r in sorted(stored.values())
                ]
            else:
                assert self._alive(table, rows) == self._alive(table, sorted(stored.values())), table

    def _alive(self, table: Table, rows: list[Row]) -> list[Row]:
        """Return the rows without memories that are over: those are forgotten by and by."""
        if table != Table.ENDED_REQUESTS:
            return rows
        return [row for row in rows if self.model.is_remembered(int(row[2]), self.now)]

    def replay(self) -> Machine:
        """Return a fresh machine that was told the same, having checked that it answered the same."""
        machine = Machine(self.rules)
        machine.recover({}, 0, T0)
        for now, command, answer in self.journal:
            if command is None:
                machine.tick(now)
            else:
                assert repeat(machine, deepcopy(command), now) == answer
            machine.take_notices()
        return machine

    # -- what follows a step ---------------------------------------------------------------------------------

    def _take_notices(self) -> None:
        for notice in self.machine.take_notices():
            if isinstance(notice, Expired):
                self._note_expired(notice)
            elif isinstance(notice, WaitGranted):
                self._note_wait_granted(notice)
            else:
                self._note_wait_refused(notice)
            self.model.note_presence(self.now)

    def _settled(self) -> None:
        """Check that nothing that is due, and nobody who could be served, was left behind."""
        model, now = self.model, self.now
        model.forget_the_past(now)
        servable = model.servable(now)
        assert not servable, f"left behind: {servable}"
        assert all(lock.expires_at > now for lock in model.locks)
        assert all(holding.expires_at > now for holding in model.holdings)
        assert all(permit.use_by > now for permit in model.permits)
        assert all(slot.claim_until > now for slot in model.slots)
        for waiter in model.waiting:
            assert waiter.times_out_at > now
            assert not waiter.away_until or waiter.away_until > now
        self._views()

    def _views(self) -> None:
        model, machine, now = self.model, self.machine, self.now
        counts = machine.counts()
        assert (counts.locks, counts.reservations) == (len(model.locks), len(model.holdings))
        assert (counts.permits, counts.bookings) == (len(model.permits), len(model.slots))
        assert counts.waiters == len(model.waiting)
        assert counts.waiters_away == sum(1 for waiter in model.waiting if waiter.away_until)
        assert counts.last_id == model.last_id
        for pool in machine.pools(now):
            if not pool.windows:
                assert pool.used == model.units_held(pool.name)
                assert pool.free == max(0, pool.capacity - pool.used)
        for limit in machine.limits(now):
            for window in limit.windows:
                name = f"limit/{limit.name}"
                assert window.used == model.peak(name, window.length_ns, now, model.use_within(name))
        for waiter in model.waiting:
            place = machine.place(waiter.id, now)
            assert (place is None) == bool(waiter.away_until)
            if place is not None:
                assert place.position >= 1
                assert place.times_out_at == waiter.times_out_at

    def _note_expired(self, notice: Expired) -> None:
        grant = self._live(grant_id(notice.grant))
        self.unheard.pop(grant_id(notice.grant), None)
        if isinstance(grant, HeldLock):
            assert grant.expires_at <= self.now
            self.model.end_lock(grant, Outcome.UNKNOWN, EndedBy.EXPIRY, self.now)
            return
        assert grant is not None
        ends_at = {Holding: "expires_at", OpenPermit: "use_by", Slot: "claim_until"}[type(grant)]
        assert getattr(grant, ends_at) <= self.now
        self._remove(grant)
        self.model.end_request(grant, self.now)
        if isinstance(grant, Holding):
            self._note_report(("pool", grant.pool), grant, is_success=False)

    def _note_wait_granted(self, notice: WaitGranted) -> None:
        waiter = self._waiter(notice.waiter.id)
        assert not waiter.away_until, "granted while away"
        keys = self.model.keys(waiter.command)
        for other, block in self.model.servable(self.now):
            if other is waiter:
                assert block is None
                break
            shared: set[Hashable] = keys & self.model.keys(other.command)
            assert block is not None or not shared, f"{waiter} was served before {other}"
        else:
            raise AssertionError(f"{waiter} was not to be served")
        self.model.waiting.remove(waiter)
        self._note_grant(waiter.command, grant_id(notice.grant))
        self.unheard[grant_id(notice.grant)] = notice.waiter

    def _note_wait_refused(self, notice: WaitRefused) -> None:
        waiter = self._waiter(notice.waiter.id)
        if notice.refused.reason == Reason.WAIT_TIMEOUT:
            is_gone = waiter.away_until and waiter.away_until <= self.now
            assert waiter.times_out_at <= self.now or is_gone
        else:
            block = self.model.block(waiter.command, set(), self.now)
            assert block is not None
            assert block.key is None
            assert notice.refused.reason == block.reason
        self.model.waiting.remove(waiter)

    def _note_restart(self) -> None:
        model, now = self.model, self.now
        model.last_id = self.machine.last_id
        for lock in model.locks:
            lock.expires_at = max(lock.expires_at, now + self.rules.recovery_grace_ns)
        for holding in model.holdings:
            if not holding.is_refilling:
                holding.expires_at = max(holding.expires_at, now + self.rules.recovery_grace_ns)
        model.waiting = [waiter for waiter in model.waiting if waiter.command.request_id]
        for waiter in model.waiting:
            waiter.away_until = now + self.rules.resume_grace_ns
        model.shares.note_restart(model.last_given(now))
        self.unheard.clear()

    # -- what the model expects ------------------------------------------------------------------------------

    def _expect(self, command: Command) -> Answer:
        try:
            answer: Answer = self._EXPECT[type(command)](self, command)
        except Broken as broken:
            return ("error", broken.args[0])
        return answer

    def _expect_wanting(self, command: Any) -> Answer:
        if isinstance(command, TakePermit) and command.booking_id:
            return self._expect_claim(command)
        earlier = self._expect_earlier(command)
        if isinstance(earlier, Waiting):
            return self._expect_resumed(earlier, command)
        if earlier is not None:
            return ("granted", earlier.id)
        model = self.model
        rank = (model.order(command, self.now), model.last_id + 1)
        return self._expect_blocked(
            command, model.block(command, model.ahead_of(command, rank, self.now), self.now)
        )

    def _expect_blocked(self, command: Any, block: Block | None) -> Answer:
        if block is None:
            return ("granted", None)
        if command.wait_ns and block.key is not None:
            return ("queued", None)
        if self._is_at_the_pool(command, block):
            # One that waits for the same resource may have moved on to the pool, and one behind it may not:
            # then it is the queue that is told, not the pool. Either way it is blocked.
            return ("refused", frozenset({block.reason, Reason.QUEUED_AHEAD}), ANY, ANY)
        return refusal(block)

    def _expect_earlier(self, command: Any) -> Any:
        """What the same request was given before, or None. Raises: Broken."""
        earlier = self.model.earlier(command.worker, command.request_id, self.now)
        if earlier == "ended":
            raise Broken("REQUEST_ENDED")
        asked = earlier.command if isinstance(earlier, Waiting) else earlier
        is_claim = isinstance(command, TakePermit) and command.booking_id
        if earlier is not None and (
            not self.model.same(command, asked) or (is_claim and isinstance(earlier, Waiting))
        ):
            raise Broken("REQUEST_ID_REUSED")
        return earlier

    def _is_at_the_pool(self, command: Any, block: Block) -> bool:
        if not isinstance(command, ReserveResource) or not command.resource_id:
            return False
        return block.key == ("pool", self.model.pool_of(command))

    def _expect_resumed(self, waiter: Waiting, command: Any) -> Answer:
        if not waiter.away_until:
            return ("queued", waiter.id) if command.wait_ns else ("refused", ANY, ANY, ANY)
        model = self.model
        block = model.block(waiter.command, model.ahead_of(waiter.command, waiter.rank, self.now), self.now)
        if block is None:
            return ("granted", None)
        if not command.wait_ns:
            return refusal(block)
        return ("queued", waiter.id) if block.key is not None else ("refused for good", block.reason)

    def _expect_claim(self, command: TakePermit) -> Answer:
        model = self.model
        earlier = self._expect_earlier(command)
        if earlier is not None:
            return ("granted", earlier.id)
        slot = self._own(command.booking_id, command.worker, Slot)
        if slot is None or slot.endpoint != command.endpoint:
            raise Broken("BOOKING_LAPSED")
        if self.now < slot.execute_at:
            return ("refused", Reason.BOOKING_EARLY, slot.execute_at, ANY)
        name = f"limit/{slot.endpoint}"
        model.slots.remove(slot)
        try:
            if model.fits(name, slot.count, self.now, model.use_within(name)):
                return ("granted", None)
            assert slot.endpoint in self.lowered, "a booking whose room was given away"
            if slot.count > min(model.limits[name].values()):
                return ("refused", Reason.WINDOW_FULL, ANY, ANY)
            at = model.earliest(name, slot.count, self.now, model.use_within(name))
            return ("refused", Reason.WINDOW_FULL, at, ANY)
        finally:
            model.slots.append(slot)

    def _expect_renew_lock(self, command: RenewLock) -> Answer:
        lock = self._own_lock(command)
        if lock is None:
            raise Broken("LEASE_LOST")
        return ("renewed", lock.id)

    def _expect_release_lock(self, command: ReleaseLock) -> Answer:
        lock = self._own_lock(command)
        if lock is not None:
            return ("released", command.outcome, False)
        for past in self.model.history:
            is_known = self.model.is_remembered(past.at, self.now)
            if past.token == command.token and past.ended_by == EndedBy.RELEASE and is_known:
                if (past.worker, past.item) != (command.worker, command.item):
                    raise Broken("NOT_HOLDER")
                return ("released", past.outcome, True)
        raise Broken("LEASE_LOST")

    def _expect_renew_reservation(self, command: RenewReservation) -> Answer:
        holding = self._own(command.id, command.worker, Holding)
        if holding is None:
            raise Broken("LEASE_LOST")
        if holding.is_refilling:
            raise Broken("NOT_RENEWABLE")
        return ("renewed", holding.id)

    def _expect_release_resource(self, command: ReleaseResource) -> Answer:
        holding = self._own(command.id, command.worker, Holding)
        if holding is None:
            return ("released", None)
        if command.unused_units > (holding.units if holding.is_refilling else 0):
            raise Broken("INVALID_COUNT")
        return ("released", holding.id)

    def _expect_record_usage(self, command: RecordUsage) -> Answer:
        if command.endpoint not in self.rules.limits:
            raise Broken("UNKNOWN_ENDPOINT")
        permit = self._live(command.id)
        if not isinstance(permit, OpenPermit):
            self._given(command.id)
            return ("recorded", None, 0)
        if (permit.worker, permit.endpoint) != (command.worker, command.endpoint):
            raise Broken("NOT_HOLDER")
        return ("recorded", permit.id, 0 if command.is_sent else permit.count)

    def _expect_schedule(self, command: ScheduleRequest) -> Answer:
        model = self.model
        earlier = model.earlier(command.worker, command.request_id, self.now)
        if earlier == "ended":
            raise Broken("REQUEST_ENDED")
        if earlier is not None:
            if not isinstance(earlier, Slot) or (earlier.endpoint, earlier.count) != (
                command.endpoint,
                command.count,
            ):
                raise Broken("REQUEST_ID_REUSED")
            return ("booked", earlier.id, earlier.execute_at)
        if command.endpoint not in self.rules.limits:
            raise Broken("UNKNOWN_ENDPOINT")
        name = f"limit/{command.endpoint}"
        if command.count > min(model.limits[name].values()):
            raise Broken("PERMITS_ABOVE_LIMIT")
        rule = self.rules.limits[command.endpoint]
        start, hold_ns = self.now + command.not_before_ns, rule.claim_window_ns + rule.use_within_ns
        if any(
            ("limit", command.endpoint) in model.keys(waiter.command)
            for waiter in model.present()
            if waiter.rank < (self._order(command), model.last_id + 1)
        ):
            # Behind others: when they will have been served is an estimate; `_note_booked` checks the rest.
            return ("either",)
        at = model.earliest(name, command.count, start, hold_ns)
        if at - self.now > self.rules.schedule_horizon_ns:
            raise Broken("BEYOND_HORIZON")
        return ("booked", None, at)

    def _order(self, command: ScheduleRequest) -> int:
        return self.now - self.rules.boost_ns[command.priority]

    def _expect_cancel(self, command: CancelSchedule) -> Answer:
        slot = self._own(command.id, command.worker, Slot)
        return ("cancelled", slot.id if slot is not None else None)

    def _expect_leave(self, command: LeaveWait) -> Answer:
        waiter = self._find_waiter(command.id)
        return ("left", waiter is not None and bool(waiter.command.request_id))

    def _expect_return(self, command: ReturnGrant) -> Answer:
        grant = self._live(command.id)
        return ("returned", None if grant is None or isinstance(grant, Slot) else grant.id)

    def _expect_force(self, command: ForceRelease) -> Answer:
        grant = self._live(command.id)
        if grant is None or isinstance(grant, OpenPermit):
            raise Broken("UNKNOWN_ID")
        return ("forced", grant.id)

    def _expect_update_limit(self, command: UpdateLimit) -> Answer:
        if command.endpoint not in self.rules.limits:
            raise Broken("UNKNOWN_ENDPOINT")
        return self._expect_windows(f"limit/{command.endpoint}", dict(command.windows))

    def _expect_windows(self, name: str, windows: dict[int, int]) -> Answer:
        limits = self.model.limits[name]
        if not windows or not windows.keys() <= limits.keys():
            raise Broken("UNKNOWN_WINDOW")
        merged = sorted((limits | windows).items())
        for (short, few), (long, many) in pairwise(merged):
            if many < few or many > few * -(-long // short):
                raise Broken("CONTRADICTING_WINDOWS")
        return ("updated", name)

    def _expect_update_pool(self, command: UpdatePool) -> Answer:
        if command.name not in self.rules.pools:
            raise Broken("UNKNOWN_POOL")
        is_refilling = self.rules.pools[command.name].limit is not None
        if (bool(command.capacity), bool(command.windows)) != (not is_refilling, is_refilling):
            raise Broken("INVALID_COUNT")
        name = f"pool/{command.name}"
        return self._expect_windows(name, dict(command.windows)) if is_refilling else ("updated", name)

    _EXPECT: ClassVar[dict[type, Any]] = {
        RequestLock: _expect_wanting,
        ReserveResource: _expect_wanting,
        TakePermit: _expect_wanting,
        RenewLock: _expect_renew_lock,
        ReleaseLock: _expect_release_lock,
        RenewReservation: _expect_renew_reservation,
        ReleaseResource: _expect_release_resource,
        RecordUsage: _expect_record_usage,
        ScheduleRequest: _expect_schedule,
        CancelSchedule: _expect_cancel,
        LeaveWait: _expect_leave,
        ReturnGrant: _expect_return,
        ForceRelease: _expect_force,
        UpdateLimit: _expect_update_limit,
        UpdatePool: _expect_update_pool,
    }

    # -- what the model learns -------------------------------------------------------------------------------

    def _note(self, command: Command, outcome: Any) -> None:
        note = self._NOTE.get(type(command))
        if note is not None:
            note(self, command, outcome)

    def _note_wanting(self, command: Any, outcome: Any) -> None:
        model = self.model
        waiter = None
        if command.request_id:
            earlier = model.earlier(command.worker, command.request_id, self.now)
            waiter = earlier if isinstance(earlier, Waiting) else None
        if isinstance(outcome, Refused):
            assert waiter is not None
            model.waiting.remove(waiter)
        elif isinstance(outcome, Granted):
            if not outcome.is_repeat:
                if waiter is not None:
                    model.waiting.remove(waiter)
                self._note_grant(waiter.command if waiter is not None else command, grant_id(outcome.grant))
                if waiter is not None:
                    assert outcome.waiter is not None
                    self.unheard[grant_id(outcome.grant)] = outcome.waiter
        elif waiter is not None:
            waiter.away_until = 0
            waiter.times_out_at = self.now + command.wait_ns
        else:
            self._new_id(outcome.id)
            order = model.order(command, self.now)
            model.waiting.append(Waiting(outcome.id, command, order, self.now + command.wait_ns))

    def _note_grant(self, command: Any, id: int) -> None:
        self._new_id(id)
        grant: HeldLock | Holding | OpenPermit
        if isinstance(command, RequestLock):
            grant = self.model.grant_lock(command, id, self.now)
        elif isinstance(command, ReserveResource):
            grant = self.model.grant_reservation(command, id, self.now)
        else:
            worker, count = command.worker, command.count
            if command.booking_id:
                slot = self._live(command.booking_id)
                assert isinstance(slot, Slot)
                self.model.slots.remove(slot)
                self.model.end_request(slot, self.now)
                worker, count = slot.worker, slot.count
            grant = self.model.grant_permit(
                command.endpoint, worker, count, request_id=command.request_id, id=id, now=self.now
            )
        key = self.model.shared(command)
        if key is not None:
            self.model.shares.note_given((key, command.worker), self.now)
        self._check_record(grant)

    def _check_record(self, grant: HeldLock | Holding | OpenPermit) -> None:
        record = self.machine._ledger.live.get(grant.id)
        if record is not None:
            for name in ("worker", "granted_at", "expires_at", "use_by", "count", "units", "pool"):
                if hasattr(grant, name):
                    assert getattr(record, name) == getattr(grant, name), name

    def _note_renew(self, command: RenewLock | RenewReservation, outcome: Any) -> None:
        lease: Any = self._live(grant_id(outcome.grant))
        lease.ttl_ns = command.ttl_ns or lease.ttl_ns
        lease.expires_at = self.now + lease.ttl_ns
        assert outcome.grant.expires_at == lease.expires_at

    def _note_release_lock(self, command: ReleaseLock, outcome: LockReleased) -> None:
        if not outcome.is_repeat:
            lock = self._live(command.token)
            assert isinstance(lock, HeldLock)
            self.model.end_lock(lock, command.outcome, EndedBy.RELEASE, self.now)

    def _note_release_resource(self, command: ReleaseResource, outcome: ResourceReleased) -> None:
        holding = self._live(command.id)
        if isinstance(holding, Holding):
            self.model.settle(holding.id, command.unused_units, self.now)
            self.model.holdings.remove(holding)
            self.model.end_request(holding, self.now)
            self._note_report(("pool", holding.pool), holding, is_success=True)

    def _note_report(self, key: tuple[str, str], grant: Holding | OpenPermit, *, is_success: bool) -> None:
        is_refilling = isinstance(grant, Holding) and grant.is_refilling
        if self.model.shares.rule(key) is not None and not is_refilling:
            self.model.shares.note_report((key, grant.worker), self.now, is_success=is_success)

    def _note_record_usage(self, command: RecordUsage, outcome: UsageRecorded) -> None:
        permit = self._live(command.id)
        if isinstance(permit, OpenPermit):
            self.model.settle(permit.id, 0 if command.is_sent else permit.count, self.now)
            self.model.permits.remove(permit)
            self.model.end_request(permit, self.now)
            if command.is_sent:
                self._note_report(("limit", permit.endpoint), permit, is_success=command.is_success)

    def _note_booked(self, command: ScheduleRequest, outcome: Booked) -> None:
        if outcome.is_repeat:
            return
        booking, model = outcome.booking, self.model
        self._new_id(booking.id)
        name = f"limit/{booking.endpoint}"
        rule = self.rules.limits[booking.endpoint]
        hold_ns = rule.claim_window_ns + rule.use_within_ns
        assert model.fits(name, booking.count, booking.execute_at, hold_ns), "booked where there is no room"
        assert booking.execute_at >= model.earliest(
            name, booking.count, self.now + command.not_before_ns, hold_ns
        )
        assert booking.claim_until == booking.execute_at + rule.claim_window_ns
        slot = Slot(
            booking.id,
            booking.endpoint,
            command.worker,
            command.count,
            booking.execute_at,
            booking.claim_until,
            booking.use_by,
            command.request_id,
        )
        model.slots.append(slot)

    def _note_cancel(self, command: CancelSchedule, outcome: BookingCancelled) -> None:
        slot = self._live(command.id)
        if isinstance(slot, Slot):
            self.model.slots.remove(slot)
            self.model.end_request(slot, self.now)

    def _note_leave(self, command: LeaveWait, outcome: WaiterLeft) -> None:
        waiter = self._find_waiter(command.id)
        if waiter is None or waiter.away_until:
            return
        if waiter.command.request_id:
            waiter.away_until = self.now + self.rules.resume_grace_ns
        else:
            self.model.waiting.remove(waiter)

    def _note_return(self, command: ReturnGrant, outcome: GrantReturned) -> None:
        grant = self._live(command.id)
        if grant is None or isinstance(grant, Slot):
            return
        self.model.charges = [charge for charge in self.model.charges if charge.id != grant.id]
        self._remove(grant)
        waiter = command.waiter
        if waiter is not None and waiter.command.request_id:
            away_until = self.now + self.rules.resume_grace_ns
            self.model.waiting.append(
                Waiting(waiter.id, waiter.command, waiter.order_ns, waiter.times_out_at, away_until)
            )

    def _note_force(self, command: ForceRelease, outcome: Any) -> None:
        grant = self._live(command.id)
        if isinstance(grant, HeldLock):
            self.model.end_lock(grant, Outcome.UNKNOWN, EndedBy.FORCE, self.now)
        elif grant is not None:
            self._remove(grant)
            self.model.end_request(grant, self.now)

    def _note_update_limit(self, command: UpdateLimit, outcome: Any) -> None:
        limits = self.model.limits[f"limit/{command.endpoint}"]
        if any(limits[length] > value for length, value in command.windows.items()):
            self.lowered.add(command.endpoint)
        limits.update(command.windows)

    def _note_update_pool(self, command: UpdatePool, outcome: Any) -> None:
        if command.capacity:
            self.model.capacities[command.name] = command.capacity
        else:
            self.model.limits[f"pool/{command.name}"].update(command.windows)

    _NOTE: ClassVar[dict[type, Any]] = {
        RequestLock: _note_wanting,
        ReserveResource: _note_wanting,
        TakePermit: _note_wanting,
        RenewLock: _note_renew,
        RenewReservation: _note_renew,
        ReleaseLock: _note_release_lock,
        ReleaseResource: _note_release_resource,
        RecordUsage: _note_record_usage,
        ScheduleRequest: _note_booked,
        CancelSchedule: _note_cancel,
        LeaveWait: _note_leave,
        ReturnGrant: _note_return,
        ForceRelease: _note_force,
        UpdateLimit: _note_update_limit,
        UpdatePool: _note_update_pool,
    }

    # -- looking things up -----------------------------------------------------------------------------------

    def _live(self, id: int) -> HeldLock | Holding | OpenPermit | Slot | None:
        return next((grant for grant in self.model.live() if grant.id == id), None)

    def _remove(self, grant: HeldLock | Holding | OpenPermit | Slot) -> None:
        for grants in (self.model.locks, self.model.holdings, self.model.permits, self.model.slots):
            if grant in grants:
                grants.remove(grant)  # type: ignore[arg-type]

    def _given(self, id: int) -> None:
        if not 0 < id <= self.model.last_id:
            raise Broken("UNKNOWN_ID")

    def _own(self, id: int, worker: str, sort: type) -> Any:
        grant = self._live(id)
        if grant is None or not isinstance(grant, sort):
            self._given(id)
            return None
        if grant.worker != worker:
            raise Broken("NOT_HOLDER")
        return grant

    def _own_lock(self, command: RenewLock | ReleaseLock) -> HeldLock | None:
        lock = self._own(command.token, command.worker, HeldLock)
        if lock is not None and lock.item != command.item:
            raise Broken("NOT_HOLDER")
        return lock  # type: ignore[no-any-return]

    def _find_waiter(self, id: int) -> Waiting | None:
        return next((waiter for waiter in self.model.waiting if waiter.id == id), None)

    def _waiter(self, id: int) -> Waiting:
        waiter = self._find_waiter(id)
        assert waiter is not None, f"the waiter {id} does not wait"
        return waiter

    def _new_id(self, id: int) -> None:
        assert id > self.model.last_id, "an id that is not above all others"
        self.model.last_id = id


def describe(outcome: Any) -> Answer:
    """Say of an outcome what the model can predict."""
    return _DESCRIBE[type(outcome)](outcome)


_DESCRIBE: dict[type, Callable[[Any], Answer]] = {
    Granted: lambda o: ("granted", grant_id(o.grant) if o.is_repeat else None),
    Queued: lambda o: ("queued", o.id if o.is_resumed else None),
    Refused: lambda o: ("refused", o.reason, o.retry_at, o.holder),
    Renewed: lambda o: ("renewed", grant_id(o.grant)),
    LockReleased: lambda o: ("released", o.engagement.outcome, o.is_repeat),
    ResourceReleased: lambda o: ("released", o.reservation and o.reservation.id),
    UsageRecorded: lambda o: ("recorded", o.permit and o.permit.id, o.refunded),
    Booked: lambda o: ("booked", o.booking.id if o.is_repeat else None, o.booking.execute_at),
    BookingCancelled: lambda o: ("cancelled", o.booking and o.booking.id),
    WaiterLeft: lambda o: ("left", o.is_away),
    GrantReturned: lambda o: ("returned", o.grant and grant_id(o.grant)),
    Forced: lambda o: ("forced", grant_id(o.grant)),
    Updated: lambda o: ("updated", o.subject),
}


def matches(expected: Answer, answer: Answer) -> bool:
    """Whether an answer is as expected."""
    if expected[0] == "either":
        return answer[0] == "booked" or answer == ("error", "BEYOND_HORIZON")
    if expected[0] == "refused for good":
        return answer[:2] == ("refused", expected[1])
    return len(expected) == len(answer) and all(
        want is ANY or want == got or (isinstance(want, frozenset) and got in want)
        for want, got in zip(expected, answer, strict=True)
    )


def refusal(block: Block) -> Answer:
    return ("refused", block.reason, ANY if block.retry_at is None else block.retry_at, block.holder)


def told(outcome: Any) -> str:
    """Return all that an answer says, as text."""
    if isinstance(outcome, Granted):
        return f"{outcome.grant} {outcome.is_repeat}"
    return repr(outcome)


def repeat(machine: Machine, command: Command, now: int) -> str:
    """Apply a command and return its answer as the journal has it."""
    try:
        return told(machine.apply(command, now))
    except CommandError as error:
        return repr(("error", error.reason))
