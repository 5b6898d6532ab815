"""What fair shares add up to: fleets of workers in virtual time, judged by what was granted and when.

The judge knows grants and instants, and nothing of levels, queues or buckets.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordd.core.commands import RecordUsage, TakePermit
from coordd.core.limits import DAY, SECOND
from coordd.core.machine import Machine
from coordd.core.outcomes import Granted, WaitGranted
from coordd.core.records import Permit
from coordd.core.rules import EQUAL, PROPORTIONAL, LimitRule, Rules

_FLEETS = 15 if settings().max_examples < 1_000 else 400
T0 = 1_790_000_000 * SECOND
# A bucket is 1/500 of its window, and a charge counts from the begin of its bucket to the end of the last.
ROUNDING = 1.005


@dataclass
class Fleet:
    """Workers that always have so many requests waiting, and a log of all that they were given.

    Capacity comes back in bursts, so a worker is saturated only if it has as many waiting as come back at
    once: what nobody waits for goes to whoever asks first.
    """

    windows: dict[int, int]
    share: str = EQUAL
    weights: dict[str, float] = field(default_factory=dict)
    use_within_ns: int = SECOND // 10
    fair_bound_ns: int = DAY
    # Workers whose calls all fail.
    failing: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        limit = LimitRule(
            windows=self.windows, use_within_ns=self.use_within_ns, is_fair=True, share=self.share
        )
        self.machine = Machine(
            Rules(
                kinds={},
                types={},
                pools={},
                limits={"e": limit},
                worker_weights=self.weights,
                fair_bound_ns=self.fair_bound_ns,
            )
        )
        self.machine.recover({}, 0, T0)
        self.now = T0
        self.log: list[tuple[int, str, int]] = []

    def want(self, worker: str, requests: int = 1) -> None:
        """Let so many requests of a worker wait; what is granted at once is asked for again."""
        command = TakePermit(endpoint="e", worker=worker, wait_ns=DAY)
        while requests:
            outcome = self.machine.apply(command, self.now)
            if isinstance(outcome, Granted):
                self._given(outcome.grant)
            else:
                requests -= 1

    def run(self, for_ns: int) -> None:
        """Let time pass; whoever is given something wants as much again."""
        until = self.now + for_ns
        while (due_at := self.machine.next_deadline()) is not None and due_at <= until:
            self.now = max(self.now, due_at)
            self.machine.tick(self.now)
            for notice in self.machine.take_notices():
                if isinstance(notice, WaitGranted):
                    self._given(notice.grant)
                    self.want(notice.waiter.command.worker)
            self.machine.take_changes()
        self.now = until

    def _given(self, permit: object) -> None:
        assert isinstance(permit, Permit)
        self.log.append((self.now, permit.worker, permit.count))
        usage = RecordUsage(
            endpoint="e",
            worker=permit.worker,
            id=permit.id,
            is_sent=True,
            is_success=permit.worker not in self.failing,
        )
        self.machine.apply(usage, self.now)

    def given(self, after: int, until: int) -> Counter[str]:
        """What each worker was given within (after, until]."""
        given: Counter[str] = Counter()
        for at, worker, count in self.log:
            if after < at <= until:
                given[worker] += count
        return given

    def judge_windows(self) -> None:
        """No window holds more than its limit, at any instant at which something was given."""
        for length, limit in self.windows.items():
            within: deque[tuple[int, int]] = deque()
            total = 0
            for at, _, count in self.log:
                within.append((at, count))
                total += count
                while within[0][0] <= at - length:
                    total -= within.popleft()[1]
                assert total <= limit, f"{total} within {length} ns; {limit} may"


def jain(parts: list[int]) -> float:
    """Jain's index of fairness: 1 where all are equal, 1/n where one has it all."""
    return sum(parts) ** 2 / (len(parts) * sum(part * part for part in parts))


# (length, limit) with at least twenty units for each of up to eight workers in the longest.
windows = st.sampled_from(
    [
        {10 * SECOND: 160},
        {SECOND: 40, 20 * SECOND: 200},
        {5 * SECOND: 60, 60 * SECOND: 240},
        {SECOND: 25, 10 * SECOND: 170, 60 * SECOND: 600},
    ]
)
workers = st.integers(2, 8).map(lambda count: [f"w{index}" for index in range(count)])


@settings(max_examples=_FLEETS)
@given(windows=windows, workers=workers, more=st.integers(0, 40))
def test_equal_saturated_workers_have_equal_parts_of_each_window(
    windows: dict[int, int], workers: list[str], more: int
) -> None:
    fleet = Fleet(windows)
    longest = max(windows)
    for worker in workers:
        fleet.want(worker, windows[longest] + more)
    fleet.run(4 * longest)
    ends = [fleet.now - step * longest // 7 for step in range(7)]
    for end in ends:
        given = fleet.given(end - longest, end)
        assert jain([given[worker] for worker in workers]) >= 0.99
    fleet.judge_windows()


@settings(max_examples=_FLEETS)
@given(
    windows=windows,
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0]), min_size=2, max_size=6),
)
def test_weights_are_respected_to_within_a_unit_and_two_percent(
    windows: dict[int, int], weights: list[float]
) -> None:
    named = {f"w{index}": weight for index, weight in enumerate(weights)}
    fleet = Fleet(windows, share=PROPORTIONAL, weights=named)
    longest = max(windows)
    for worker in named:
        fleet.want(worker, windows[longest])
    fleet.run(6 * longest)
    given = fleet.given(fleet.now - 5 * longest, fleet.now)
    for worker, weight in named.items():
        part = given.total() * weight / sum(weights)
        # One unit a window is what units that can't be divided leave open.
        assert abs(given[worker] - part) <= 0.02 * part + 5, (given, named)


@settings(max_examples=_FLEETS)
@given(windows=windows, workers=workers, early=st.integers(1, 3))
def test_whenever_somebody_wants_more_nothing_is_left_idle(
    windows: dict[int, int], workers: list[str], early: int
) -> None:
    fleet = Fleet(windows)
    longest = max(windows)
    # Only some of them want anything: they have all of it.
    for worker in workers[:early]:
        fleet.want(worker, 40)
    fleet.run(5 * longest)
    # The bucket and the time a call may take until it is counted are what a window is longer by.
    rounds = 5 * longest / (longest * ROUNDING + fleet.use_within_ns)
    given = fleet.given(T0 - 1, fleet.now).total()
    assert given >= 0.99 * windows[longest] * int(rounds), given


@settings(max_examples=_FLEETS)
@given(windows=windows, workers=workers, asleep_windows=st.integers(1, 4))
def test_a_waking_worker_has_its_part_within_one_window(
    windows: dict[int, int], workers: list[str], asleep_windows: int
) -> None:
    fleet = Fleet(windows)
    longest = max(windows)
    for worker in workers[1:]:
        fleet.want(worker, 40)
    fleet.run(asleep_windows * longest)
    fleet.want(workers[0], 40)
    woke_at = fleet.now
    fleet.run(int(longest * ROUNDING) + fleet.use_within_ns)
    part = windows[longest] // len(workers)
    assert fleet.given(woke_at - 1, fleet.now)[workers[0]] >= part - 1


@settings(max_examples=_FLEETS)
@given(workers=st.integers(2, 6), hog=st.integers(20, 60), bound_s=st.integers(3, 9))
def test_nobody_is_starved_beyond_the_bound(workers: int, hog: int, bound_s: int) -> None:
    # A short window that frees one unit a second, and a long one of which the hog had much while it was
    # alone: by its level it would wait until the others have caught up.
    fleet = Fleet({SECOND: 1, 600 * SECOND: 600}, fair_bound_ns=bound_s * SECOND)
    fleet.want("hog", 2)
    fleet.run(hog * SECOND)
    for index in range(workers):
        fleet.want(f"w{index}", 2)
    fleet.run(120 * SECOND)
    at = [at for at, worker, _ in fleet.log if worker == "hog"]
    gaps = [later - earlier for earlier, later in pairwise(at)]
    # Those who are starved by then go first, the longest so first: each is one grant.
    most = bound_s * SECOND + int((workers + 1) * 1.3 * SECOND)
    assert max([*gaps, fleet.now - at[-1]]) <= most


@pytest.mark.parametrize("failing", [{"w0"}, {"w0", "w1"}])
def test_one_whose_calls_fail_borrows_less_and_never_has_less_than_its_own(failing: set[str]) -> None:
    windows = {10 * SECOND: 120}
    fleet = Fleet(windows, failing=failing)
    # The idle one is active, and wants nothing more: its part is lent to the three others.
    fleet.machine.apply(TakePermit(endpoint="e", worker="idle"), fleet.now)
    for worker in ("w0", "w1", "w2"):
        fleet.want(worker, 40)
    fleet.run(60 * SECOND)
    given = fleet.given(fleet.now - 30 * SECOND, fleet.now)
    own = 3 * windows[10 * SECOND] // 4
    assert all(given[worker] >= own * 0.97 for worker in ("w0", "w1", "w2")), given
    for bad in failing:
        assert all(given[bad] < given[good] for good in {"w0", "w1", "w2"} - failing), given
