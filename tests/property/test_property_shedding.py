"""What is shed would indeed have timed out: judged by a machine that does not shed and is told the same.

Windows are exact: nothing comes back early, so that what the shedding machine foretold is what the other one
lives through.
"""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coordd.core.commands import ReserveResource, TakePermit
from coordd.core.limits import SECOND
from coordd.core.machine import Machine
from coordd.core.outcomes import Granted, Queued, Reason, Refused, WaitGranted, WaitRefused
from coordd.core.rules import LimitRule, PoolRule, Rules, TypeRule

T0 = 1_790_000_000 * SECOND
WINDOWS = LimitRule(windows={10 * SECOND: 3, 30 * SECOND: 5}, use_within_ns=2 * SECOND)
Command = TakePermit | ReserveResource


def rules_of(*, is_shedding: bool) -> Rules:
    return Rules(
        kinds={},
        types={"post": TypeRule(pool="tweets")},
        pools={"tweets": PoolRule(limit=WINDOWS)},
        limits={"search": WINDOWS},
        is_shedding=is_shedding,
    )


class World:
    """A machine, its time, and what became of each waiter: when it was granted, None if it never was."""

    def __init__(self, *, is_shedding: bool) -> None:
        self.machine = Machine(rules_of(is_shedding=is_shedding))
        self.machine.recover({}, 0, T0)
        self.now = T0
        self.ended: dict[int, int | None] = {}

    def advance_to(self, until: int) -> None:
        while True:
            due_at = self.machine.next_deadline()
            self.now = until if due_at is None else min(max(self.now, due_at), until)
            self.machine.tick(self.now)
            for notice in self.machine.take_notices():
                if isinstance(notice, WaitGranted):
                    self.ended[notice.waiter.id] = self.now
                elif isinstance(notice, WaitRefused):
                    self.ended[notice.waiter.id] = None
            if due_at is None or due_at > until:
                return

    def gone(self) -> set[int]:
        return {waiter for waiter, at in self.ended.items() if at is None}

    def do(self, command: Command) -> Any:
        return self.machine.apply(command, self.now)


def command_of(which: str, units: int, wait_ns: int, priority: int) -> Command:
    if which == "limit":
        return TakePermit(endpoint="search", worker="w", count=units, wait_ns=wait_ns, priority=priority)
    return ReserveResource(type="post", worker="w", units=units, wait_ns=wait_ns, priority=priority)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 8).map(lambda seconds: seconds * SECOND // 2),
        st.sampled_from(["limit", "pool"]),
        st.integers(1, 3),
        st.integers(0, 40).map(lambda seconds: seconds * SECOND),
        st.sampled_from([2, 2, 2, 3]),
    ),
    max_size=25,
)


@given(steps=STEPS)
def test_what_is_shed_would_have_timed_out(steps: list[tuple[int, str, int, int, int]]) -> None:
    shedding = World(is_shedding=True)
    told: list[tuple[int, Command]] = []
    for after_ns, which, units, wait_ns, priority in steps:
        shedding.advance_to(shedding.now + after_ns)
        command = command_of(which, units, wait_ns, priority)
        before = shedding.machine.digest()
        outcome = shedding.do(command)
        if isinstance(outcome, Refused) and outcome.reason == Reason.WOULD_TIME_OUT:
            assert shedding.machine.digest() == before
            assert outcome.retry_at > shedding.now
            judge = tell(told, shedding.now)
            waiter = judge.do(command)
            assert isinstance(waiter, Queued)
            gone = judge.gone()
            judge.advance_to(judge.now + wait_ns)
            if judge.gone() - gone == {waiter.id} or not judge.gone() - gone:
                assert judge.ended[waiter.id] is None, "it would have been served"
            # Else somebody ahead has given up, which nobody could foretell.
        else:
            told.append((shedding.now, command))


def tell(told: list[tuple[int, Command]], now: int) -> World:
    """Tell a machine that does not shed all that the other one took in."""
    judge = World(is_shedding=False)
    for at, command in told:
        judge.advance_to(at)
        judge.do(command)
    judge.advance_to(now)
    return judge


@given(steps=STEPS)
def test_from_retry_at_on_the_same_wait_is_served_in_time(
    steps: list[tuple[int, str, int, int, int]],
) -> None:
    """Where nobody waits, and nobody else comes: of one behind others the estimate is no more than that."""
    world = World(is_shedding=True)
    for after_ns, which, units, wait_ns, _ in steps:
        world.advance_to(world.now + after_ns)
        command = command_of(which, units, wait_ns, 2)
        outcome = world.do(command)
        if isinstance(outcome, Refused) and outcome.reason == Reason.WOULD_TIME_OUT and outcome.position == 1:
            world.advance_to(outcome.retry_at)
            again = world.do(command)
            if isinstance(again, Queued):
                world.advance_to(world.now + wait_ns)
                assert world.ended[again.id] is not None
            else:
                assert isinstance(again, Granted)
            return
