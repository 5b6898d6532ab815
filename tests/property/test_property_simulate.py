"""Simulated runs of any trace, judged by brute force over what was granted.

The judge knows the rules and the log, and nothing of the core: no sum, window or queue of its own is the
core's.
"""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.rules import CRITICAL, LOW, KindRule, LimitRule, PoolRule, Rules, TypeRule
from coordd.planning.demands import ANY_WORKER, EVERY_WORKER, Demand, read_steps
from coordd.planning.log import Log, Use
from coordd.planning.report import figures_of
from coordd.planning.run import Plan, Simulation
from coordd.planning.trace import Trace

WINDOWS = {20 * SECOND: 4, MINUTE: 6}
USE_WITHIN_NS = 5 * SECOND
CAPACITY = 3
RULES = Rules(
    kinds={"reply": KindRule(min_interval_ns=HOUR, ttl_ns=MINUTE)},
    types={"content": TypeRule(pool="pipeline"), "quota": TypeRule(pool="tweets")},
    pools={
        "pipeline": PoolRule(capacity=CAPACITY),
        "tweets": PoolRule(limit=LimitRule(windows=WINDOWS, use_within_ns=USE_WITHIN_NS)),
    },
    limits={"post": LimitRule(windows=WINDOWS, use_within_ns=USE_WITHIN_NS)},
)
T0 = 1_600_000_000 * SECOND
CLAIMS = ["permit:post", "permit:post:3", "units:content", "units:content::2", "units:quota::2"]

claims = st.sampled_from([*CLAIMS, "lock:reply:a", "lock:reply:b"])
steps = st.one_of(
    st.lists(claims, min_size=1, max_size=3, unique=True).map(" > ".join),
    st.builds(
        "lock:reply:{} + {} > permit:post".format,
        st.sampled_from("ab"),
        st.sampled_from(["permit:post:2", "units:content::2", "units:content + permit:post", "units:quota"]),
    ),
    st.sampled_from(["units:content::3 + permit:post:4", "lock:reply:a + lock:reply:b + permit:post"]),
)
demands = st.builds(
    lambda gap_ms, worker, what, priority, hold_s: (gap_ms, worker, what, priority, hold_s),
    st.integers(0, 5_000),
    st.sampled_from([ANY_WORKER, EVERY_WORKER, "a", "b"]),
    steps,
    st.integers(LOW, CRITICAL),
    st.none() | st.integers(0, 10),
)
plans = st.builds(
    Plan,
    workers=st.integers(1, 4),
    wait_ns=st.sampled_from([0, 10 * SECOND, 10 * MINUTE]),
    service_ns=st.sampled_from([0, SECOND // 2, 3 * SECOND]),
    at_once=st.integers(0, 2),
    seed=st.integers(0, 3),
)


def trace_of(rows: list[tuple[int, str, str, int, int | None]]) -> Trace:
    made, at_ns = [], T0
    for line, (gap_ms, worker, what, priority, hold_s) in enumerate(rows):
        at_ns += gap_ms * SECOND // 1_000
        made.append(
            Demand(
                line=line,
                at_ns=at_ns,
                worker=worker,
                steps=read_steps(what),
                priority=priority,
                hold_ns=None if hold_s is None else hold_s * SECOND,
            )
        )
    return Trace(demands=tuple(made), is_dated=True, unordered=0)


def most_that_upstream_can_have_counted(uses: list[Use], length_ns: int) -> int:
    """The most calls in any time of that length, wherever between grant and last use each has arrived."""
    calls = [
        (use.begun_at, min(use.ended_at, use.begun_at + USE_WITHIN_NS), use.count)
        for use in uses
        if use.is_used
    ]
    return max(
        (
            sum(count for first, last, count in calls if first <= at and last > at - length_ns)
            for at, _, _ in calls
        ),
        default=0,
    )


def most_held(uses: list[Use]) -> int:
    return max(
        (sum(use.count for use in uses if use.begun_at <= at.begun_at < use.ended_at) for at in uses),
        default=0,
    )


def judge(log: Log) -> None:
    for key in (("limit", "post"), ("pool", "tweets")):
        for length_ns, limit in WINDOWS.items():
            assert most_that_upstream_can_have_counted(log.uses.get(key, []), length_ns) <= limit
    assert most_held(log.uses.get(("pool", "pipeline"), [])) <= CAPACITY
    for item in "ab":
        what = f"lock:reply:{item}"
        done = [each for each in log.attempts if each.granted_at and read_steps(what)[0] in each.demand.steps]
        # The whole run is shorter than the kind's minimum interval.
        assert len(done) <= 1
    assert all(each.ended_at >= max(each.granted_at, each.begun_at) for each in log.attempts)
    assert all(bool(each.granted_at) != bool(each.reason) for each in log.attempts)
    # Whoever has come has gone.
    for changes in [log.waiting, *log.queues.values()]:
        assert sum(change for _, change in changes) == 0
        assert (
            min((sum(change for _, change in changes[:end]) for end in range(len(changes))), default=0) >= 0
        )


@given(rows=st.lists(demands, min_size=1, max_size=25), plan=plans)
def test_no_window_and_no_pool_is_exceeded_and_everybody_ends(
    rows: list[tuple[int, str, str, int, int | None]], plan: Plan
) -> None:
    trace = trace_of(rows)
    log = Simulation(RULES, trace.demands, plan).run()
    assert log.is_complete
    judge(log)


@given(rows=st.lists(demands, min_size=1, max_size=15), plan=plans)
def test_equal_input_gives_equal_figures(
    rows: list[tuple[int, str, str, int, int | None]], plan: Plan
) -> None:
    trace = trace_of(rows)
    first, second = (
        msgspec.json.encode(figures_of(Simulation(RULES, trace.demands, plan).run(), trace, RULES))
        for _ in range(2)
    )
    assert first == second
