"""The whole machine against the naive model: any commands, at any instants, with restarts in between."""

from collections.abc import Callable
from typing import Any, TypeVar

from harness import Harness
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from property_rules import rules_of

from coordd.core import commands
from coordd.core.limits import MILLISECOND, SECOND
from coordd.core.records import Outcome
from coordd.core.rules import PRIORITIES
from coordd.core.waiters import ReturnGrant

workers = st.sampled_from(["w1", "w2", "w3"])
items = st.sampled_from(["a", "b"])
priorities = st.sampled_from(PRIORITIES)
request_ids = st.sampled_from(["", "", "", "r1", "r2", "r3"])
waits = st.sampled_from([0, 0, 60 * SECOND, 60 * SECOND, 5 * SECOND])
ttls = st.sampled_from([0, 0, SECOND, 7 * SECOND])
endpoints = st.sampled_from(["search", "search", "post"])
indexes = st.integers(0, 7)
is_rarely = st.sampled_from([False] * 9 + [True])


Rule = TypeVar("Rule", bound=Callable[..., Any])


def where_there_are(name: str) -> Callable[[Rule], Rule]:
    """Run a rule only where one of the model's lists is not empty."""
    return precondition(lambda self: bool(getattr(self.harness.model, name)))


class WholeMachine(RuleBasedStateMachine):
    """Whatever comes, the machine and the model agree."""

    harness: Harness

    @initialize(is_by_kind=st.booleans())
    def begin(self, *, is_by_kind: bool) -> None:
        self.harness = Harness(rules_of(is_exclusive_by_kind=is_by_kind))

    # -- wanting ---------------------------------------------------------------------------------------------

    @rule(
        item=items,
        kind=st.sampled_from(["reply", "like", "quote"]),
        worker=workers,
        ttl_ns=ttls,
        priority=priorities,
        quality=st.sampled_from([0.0, 0.5, 1.0]),
        request_id=request_ids,
        wait_ns=waits,
    )
    def request_lock(self, **wanted: Any) -> None:
        self.harness.do(commands.RequestLock(**wanted))

    @rule(
        wanted=st.sampled_from(
            [
                ("db", "", 0),
                ("db", "", 2),
                ("db", "x", 0),
                ("db", "y", 3),
                ("file", "x", 0),
                ("gpu", "x", 1),
                ("gpu", "y", 2),
                ("quota", "tweet", 1),
                ("quota", "tweet", 2),
                ("post", "x", 1),
                ("post", "", 3),
                ("slot", "", 1),
                ("slot", "", 1),
                ("slot", "", 3),
            ]
        ),
        worker=workers,
        ttl_ns=ttls,
        priority=priorities,
        request_id=request_ids,
        wait_ns=waits,
    )
    def reserve(self, wanted: tuple[str, str, int], **others: Any) -> None:
        type_, resource_id, units = wanted
        self.harness.do(commands.ReserveResource(type=type_, resource_id=resource_id, units=units, **others))

    @rule(
        endpoint=endpoints,
        worker=workers,
        count=st.sampled_from([1, 1, 2, 3]),
        priority=priorities,
        request_id=request_ids,
        wait_ns=waits,
    )
    def take_permit(self, **wanted: Any) -> None:
        self.harness.do(commands.TakePermit(**wanted))

    @rule(
        endpoint=endpoints,
        worker=workers,
        count=st.sampled_from([1, 2]),
        priority=priorities,
        request_id=request_ids,
        not_before_ns=st.sampled_from([0, 0, 3 * SECOND, 20 * SECOND]),
    )
    def schedule(self, **wanted: Any) -> None:
        self.harness.do(commands.ScheduleRequest(**wanted))

    @where_there_are("slots")
    @rule(index=indexes, is_foreign=is_rarely, is_on_time=st.booleans(), request_id=request_ids)
    def claim(self, *, index: int, is_foreign: bool, is_on_time: bool, request_id: str) -> None:
        slot = self._pick(self.harness.model.slots, index)
        if slot is None:
            return
        if is_on_time and slot.execute_at > self.harness.now:
            self.harness.advance(slot.execute_at)
        worker = "w9" if is_foreign else slot.worker
        self.harness.do(
            commands.TakePermit(
                endpoint=slot.endpoint, worker=worker, booking_id=slot.id, request_id=request_id
            )
        )

    @rule(
        command=st.sampled_from(
            [
                commands.RequestLock(item="a", kind="unheard of", worker="w1"),
                commands.ReserveResource(type="unheard of", worker="w1"),
                commands.ReserveResource(type="quota", resource_id="unheard of", worker="w1"),
                commands.ReserveResource(type="file", worker="w1"),
                commands.ReserveResource(type="file", resource_id="x", units=1, worker="w1"),
                commands.ReserveResource(type="db", units=99, worker="w1", wait_ns=SECOND),
                commands.ReserveResource(type="quota", resource_id="tweet", units=99, worker="w1"),
                commands.TakePermit(endpoint="unheard of", worker="w1"),
                commands.TakePermit(endpoint="search", worker="w1", count=99, wait_ns=SECOND),
                commands.TakePermit(endpoint="search", worker="w1", booking_id=1 << 60),
                commands.ScheduleRequest(endpoint="unheard of", worker="w1"),
                commands.ScheduleRequest(endpoint="search", worker="w1", count=99),
                commands.ScheduleRequest(endpoint="post", worker="w1", not_before_ns=999 * SECOND),
                commands.ReleaseLock(item="a", worker="w1", token=1 << 60, outcome=1),
                commands.RenewLock(item="a", worker="w1", token=0),
                commands.RenewReservation(id=1 << 60, worker="w1"),
                commands.ReleaseResource(id=1 << 60, worker="w1"),
                commands.CancelSchedule(id=1 << 60, worker="w1"),
                commands.RecordUsage(endpoint="search", worker="w1", id=0, is_sent=True, is_success=True),
                commands.RecordUsage(endpoint="?", worker="w1", id=0, is_sent=True, is_success=True),
                commands.ForceRelease(id=1 << 60, reason=""),
                commands.LeaveWait(id=1 << 60),
                ReturnGrant(id=1 << 60, waiter=None),
                commands.UpdateLimit(endpoint="unheard of", windows={10 * SECOND: 1}),
                commands.UpdateLimit(endpoint="search", windows={11 * SECOND: 1}),
                commands.UpdateLimit(endpoint="search", windows={10 * SECOND: 99}),
                commands.UpdateLimit(endpoint="search", windows={}),
                commands.UpdatePool(name="unheard of", capacity=1),
                commands.UpdatePool(name="conns"),
                commands.UpdatePool(name="tweets", capacity=3),
            ]
        )
    )
    def ask_for_nonsense(self, command: Any) -> None:
        self.harness.do(command)

    # -- giving back -----------------------------------------------------------------------------------------

    @where_there_are("locks")
    @rule(index=indexes, outcome=st.sampled_from(list(Outcome)), is_foreign=is_rarely, is_again=is_rarely)
    def release_lock(self, *, index: int, outcome: Outcome, is_foreign: bool, is_again: bool) -> None:
        lock: Any = self._pick(self.harness.model.locks, index)
        token = lock.id if lock is not None else 0
        if lock is None or is_again:
            lock = self._pick(self.harness.model.history, index)
            token = lock.token if lock is not None else 0
        if lock is not None:
            worker = "w9" if is_foreign else lock.worker
            self.harness.do(commands.ReleaseLock(item=lock.item, worker=worker, token=token, outcome=outcome))

    @where_there_are("locks")
    @rule(index=indexes, ttl_ns=ttls, is_foreign=is_rarely)
    def renew_lock(self, *, index: int, ttl_ns: int, is_foreign: bool) -> None:
        lock = self._pick(self.harness.model.locks, index)
        if lock is not None:
            item = "other" if is_foreign else lock.item
            self.harness.do(commands.RenewLock(item=item, worker=lock.worker, token=lock.id, ttl_ns=ttl_ns))

    @where_there_are("holdings")
    @rule(index=indexes, unused_units=st.sampled_from([0, 0, 1, 2]), is_foreign=is_rarely)
    def release_resource(self, *, index: int, unused_units: int, is_foreign: bool) -> None:
        held = self._pick(self.harness.model.holdings, index)
        if held is not None:
            worker = "w9" if is_foreign else held.worker
            self.harness.do(commands.ReleaseResource(id=held.id, worker=worker, unused_units=unused_units))

    @where_there_are("holdings")
    @rule(index=indexes, ttl_ns=ttls)
    def renew_reservation(self, index: int, ttl_ns: int) -> None:
        held = self._pick(self.harness.model.holdings, index)
        if held is not None:
            self.harness.do(commands.RenewReservation(id=held.id, worker=held.worker, ttl_ns=ttl_ns))

    @where_there_are("permits")
    @rule(index=indexes, is_sent=st.booleans(), is_success=st.booleans(), is_foreign=is_rarely)
    def record_usage(self, *, index: int, is_sent: bool, is_success: bool, is_foreign: bool) -> None:
        permit = self._pick(self.harness.model.permits, index)
        if permit is not None:
            worker = "w9" if is_foreign else permit.worker
            usage = commands.RecordUsage(
                endpoint=permit.endpoint, worker=worker, id=permit.id, is_sent=is_sent, is_success=is_success
            )
            self.harness.do(usage)
            self.harness.do(usage)

    @where_there_are("slots")
    @rule(index=indexes, is_foreign=is_rarely)
    def cancel(self, *, index: int, is_foreign: bool) -> None:
        slot = self._pick(self.harness.model.slots, index)
        if slot is not None:
            self.harness.do(commands.CancelSchedule(id=slot.id, worker="w9" if is_foreign else slot.worker))

    @where_there_are("waiting")
    @rule(index=indexes)
    def leave(self, index: int) -> None:
        waiter = self._pick(self.harness.model.waiting, index)
        if waiter is not None:
            self.harness.do(commands.LeaveWait(id=waiter.id))

    @where_there_are("waiting")
    @rule(index=indexes, wait_ns=waits)
    def come_back(self, index: int, wait_ns: int) -> None:
        waiter = self._pick([w for w in self.harness.model.waiting if w.command.request_id], index)
        if waiter is not None:
            fields = {name: getattr(waiter.command, name) for name in waiter.command.__struct_fields__}
            self.harness.do(type(waiter.command)(**(fields | {"wait_ns": wait_ns})))

    @precondition(lambda self: bool(self.harness.unheard))
    @rule(index=indexes)
    def return_grant(self, index: int) -> None:
        unheard = self._pick(list(self.harness.unheard.items()), index)
        if unheard is not None:
            del self.harness.unheard[unheard[0]]
            self.harness.do(ReturnGrant(id=unheard[0], waiter=unheard[1]))

    @rule(index=indexes)
    def return_grant_at_once(self, index: int) -> None:
        model = self.harness.model
        grant = self._pick([*model.locks, *model.holdings, *model.permits], index)
        if grant is not None and grant.granted_at == self.harness.now:
            self.harness.unheard.pop(grant.id, None)
            self.harness.do(ReturnGrant(id=grant.id, waiter=None))

    # -- operators -------------------------------------------------------------------------------------------

    @rule(index=indexes, is_rare=is_rarely)
    def force(self, *, index: int, is_rare: bool) -> None:
        model = self.harness.model
        grant = self._pick([*model.locks, *model.holdings, *model.slots, *model.permits], index)
        if grant is not None and is_rare:
            self.harness.do(commands.ForceRelease(id=grant.id, reason="because"))

    @rule(short=st.integers(2, 4), long=st.integers(3, 6), is_rare=is_rarely)
    def update_limit(self, *, short: int, long: int, is_rare: bool) -> None:
        if is_rare and self._wanted("search") <= min(short, long):
            windows = {10 * SECOND: short, 30 * SECOND: long}
            self.harness.do(commands.UpdateLimit(endpoint="search", windows=windows))

    @rule(short=st.integers(3, 4), long=st.integers(3, 6), is_rare=is_rarely)
    def update_refilling_pool(self, *, short: int, long: int, is_rare: bool) -> None:
        if is_rare:
            windows = {10 * SECOND: short, 60 * SECOND: long}
            self.harness.do(commands.UpdatePool(name="tweets", windows=windows))

    @rule(capacity=st.integers(3, 5), is_rare=is_rarely)
    def update_pool(self, *, capacity: int, is_rare: bool) -> None:
        if is_rare:
            self.harness.do(commands.UpdatePool(name="conns", capacity=capacity))

    # -- time and the store ----------------------------------------------------------------------------------

    @rule(by_ns=st.integers(0, 12_000).map(lambda ms: ms * MILLISECOND), is_late=is_rarely)
    def let_time_pass(self, *, by_ns: int, is_late: bool) -> None:
        self.harness.advance(self.harness.now + by_ns, is_late=is_late)

    @rule(off_by_ns=st.sampled_from([-1, 0, 0, 1]))
    def wait_for_next_deadline(self, off_by_ns: int) -> None:
        due_at = self.harness.machine.next_deadline()
        if due_at is not None:
            self.harness.advance(max(self.harness.now, due_at + off_by_ns))

    @rule()
    def commit(self) -> None:
        self.harness.commit()
        self.harness.check_store()

    @rule(down_ns=st.sampled_from([0, SECOND, 20 * SECOND]), is_rare=is_rarely)
    def restart(self, *, down_ns: int, is_rare: bool) -> None:
        if is_rare:
            self.is_restarted = True
            self.harness.restart(down_ns)

    is_restarted = False

    def teardown(self) -> None:
        if not hasattr(self, "harness"):
            return
        self.harness.commit()
        self.harness.check_store()
        if not self.is_restarted:
            assert self.harness.replay().digest() == self.harness.machine.digest()

    # --------------------------------------------------------------------------------------------------------

    def _wanted(self, endpoint: str) -> int:
        """The most that any waiter wants of an endpoint."""
        wanted = [waiter.command for waiter in self.harness.model.waiting]
        counts = [c.count for c in wanted if isinstance(c, commands.TakePermit) and c.endpoint == endpoint]
        return max(counts, default=0)

    @staticmethod
    def _pick(from_: list[Any], index: int) -> Any:
        return from_[index % len(from_)] if from_ else None


TestWholeMachine = WholeMachine.TestCase
