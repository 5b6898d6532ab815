"""A quota is never exceeded, and nothing is refused while there is room: judged by counting anew."""

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coordd.core.commands import (
    AcquireBundle,
    ForceRelease,
    LeaveWait,
    OpenSession,
    RequestLock,
    ReserveResource,
    ScheduleRequest,
    TakePermit,
)
from coordd.core.errors import CommandError, NotFound
from coordd.core.limits import MINUTE, SECOND
from coordd.core.machine import Machine
from coordd.core.rules import KindRule, LimitRule, PoolRule, QuotaRule, Rules, TypeRule

T0 = 1_790_000_000 * SECOND
LEASES, WAITERS, SESSIONS = 5, 1, 2
RULES = Rules(
    kinds={"like": KindRule(ttl_ns=MINUTE, lock_delay_ns=0)},
    types={"db": TypeRule(ttl_ns=MINUTE, pool="conns")},
    pools={"conns": PoolRule(capacity=2)},
    limits={
        "post": LimitRule(windows={10 * SECOND: 3}, use_within_ns=2 * SECOND, claim_window_ns=2 * SECOND)
    },
    quotas=QuotaRule(leases=LEASES, waiters=WAITERS, sessions=SESSIONS),
)
WORKERS, ITEMS = st.sampled_from(["w1", "w2", "w3"]), st.sampled_from(["a", "a", "b"])
WAITS, REQUEST_IDS = st.sampled_from([0, MINUTE, MINUTE]), st.sampled_from(["", "", "r1", "r2"])


def lock(item: str, worker: str, wait_ns: int = 0, request_id: str = "") -> RequestLock:
    return RequestLock(item=item, kind="like", worker=worker, wait_ns=wait_ns, request_id=request_id)


def bundle(worker: str, wait_ns: int, request_id: str) -> AcquireBundle:
    members = (lock("a", worker), lock("b", worker))
    return AcquireBundle(worker=worker, locks=members, wait_ns=wait_ns, request_id=request_id)


def session(worker: str) -> OpenSession:
    return OpenSession(worker=worker, session_id=0, worker_class="", weight_milli=0, labels=(), ttl_ns=0)


ASKED = st.one_of(
    st.builds(lock, ITEMS, WORKERS, WAITS, REQUEST_IDS),
    st.builds(ReserveResource, type=st.just("db"), worker=WORKERS, wait_ns=WAITS, request_id=REQUEST_IDS),
    st.builds(TakePermit, endpoint=st.just("post"), worker=WORKERS, wait_ns=WAITS, request_id=REQUEST_IDS),
    st.builds(ScheduleRequest, endpoint=st.just("post"), worker=WORKERS, request_id=REQUEST_IDS),
    st.builds(bundle, WORKERS, WAITS, REQUEST_IDS),
    st.builds(session, WORKERS),
)
# Besides: something live is taken away, a wait's stream goes, or time passes.
STEPS = st.lists(st.one_of(ASKED, ASKED, st.tuples(st.sampled_from(["force", "leave"]), st.integers(0, 9)),
                           st.integers(1, 40)), max_size=40)  # fmt: skip


class Room:
    """A machine, and what there is, counted anew each time."""

    def __init__(self) -> None:
        self.machine = Machine(RULES)
        self.machine.recover({}, 0, T0)
        self.now = T0

    def counts(self) -> dict[str, int]:
        counts = self.machine.counts()
        waiting = self.machine._waits.waiters.values()
        held = counts.locks + counts.reservations + counts.permits + counts.bookings + counts.bundles
        wanted = sum(3 if isinstance(waiter.command, AcquireBundle) else 1 for waiter in waiting)
        return {"leases": held + wanted, "waiters": len(waiting), "sessions": counts.sessions}

    def step(self, step: Any) -> None:
        match step:
            case int():
                self.now += step * SECOND
            case ("force", number):
                self._take(ForceRelease, sorted(self.machine._ledger.live), number)
            case ("leave", number):
                self._take(LeaveWait, sorted(self.machine._waits.waiters), number)
            case _:
                self._ask(step)
        self.machine.tick(self.now)
        while (due_at := self.machine.next_deadline()) is not None and due_at <= self.now:
            self.machine.tick(self.now)

    def _take(self, command: Any, ids: list[int], number: int) -> None:
        if ids:
            more = {"reason": ""} if command is ForceRelease else {}
            with suppress(NotFound):  # a permit can't be taken away
                self.machine.apply(command(id=ids[number % len(ids)], **more), self.now)

    def _ask(self, command: Any) -> None:
        before, there = self.machine.digest(), self.counts()
        reason, metadata = "", {}
        try:
            self.machine.apply(command, self.now)
        except CommandError as error:
            reason, metadata = error.reason, error.metadata
            assert self.machine.digest() == before
        if reason == "QUOTA_EXCEEDED":
            more = {"leases": 3 if isinstance(command, AcquireBundle) else 1}
            assert there[metadata["quota"]] + more.get(metadata["quota"], 1) > int(metadata["limit"])


@given(steps=STEPS)
def test_a_quota_is_never_exceeded_and_nothing_is_refused_while_there_is_room(steps: list[Any]) -> None:
    room = Room()
    for step in steps:
        room.step(step)
        counts = room.counts()
        assert counts["leases"] <= LEASES
        assert counts["waiters"] <= WAITERS
        assert counts["sessions"] <= SESSIONS
        assert room.machine._ledger.quotas.wanted == counts["leases"] - len(room.machine._ledger.live)
