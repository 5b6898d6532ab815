"""What virtual workers do, over the real core."""

from msgspec.structs import replace
from planning_desk import RULES, T0, demand, ends, plan, run

from coordd.core.limits import HOUR, SECOND
from coordd.core.rules import ESCALATE, KindRule
from coordd.planning.run import Simulation

LOCK_THEN_POST = "lock:reply:t > permit:post"


def waits_s(log: object) -> list[float]:
    return [attempt.wait_ns / SECOND for attempt in log.attempts if attempt.granted_at]  # type: ignore[attr-defined]


def test_one_that_is_granted_at_once() -> None:
    log = run(demand(LOCK_THEN_POST))
    [attempt] = log.attempts
    assert (attempt.begun_at, attempt.granted_at, attempt.ended_at) == (T0, T0, T0 + SECOND)
    [use] = log.uses["limit", "post"]
    assert (use.worker, use.count, use.begun_at, use.ended_at, use.is_used) == (
        "w1",
        1,
        T0,
        T0 + SECOND,
        True,
    )
    assert log.is_complete
    assert log.waiting == []


def test_who_comes_second_waits_and_then_finds_it_done() -> None:
    log = run(demand(LOCK_THEN_POST, worker="a"), demand(LOCK_THEN_POST, worker="b"))
    assert ends(log) == ["a", "b RECENTLY_ENGAGED lock:reply"]
    assert log.attempts[1].ended_at == T0 + SECOND
    assert log.waiting == [(T0, 1), (T0 + SECOND, -1)]


def test_a_full_window_is_waited_for_until_its_calls_have_left() -> None:
    log = run(*[demand("permit:post", worker=f"w{number}") for number in range(4)], how=plan(wait_s=200))
    *first, last = waits_s(log)
    assert first == [0, 0, 0]
    # They are charged at their report; a window has 500 buckets, and only whole ones leave.
    assert 101 <= last <= 101.4
    [(begins, _), (ends_at, _)] = log.queues["limit", "post"]
    assert (begins, ends_at) == (T0, log.attempts[3].granted_at)


def test_who_is_refused_a_later_step_gives_back_what_it_has_and_has_sent_nothing() -> None:
    three = [demand("permit:post:3", worker="a")]
    log = run(*three, demand("lock:reply:t > units:content > permit:post", worker="b"), how=plan(wait_s=10))
    assert ends(log) == ["a", "b WAIT_TIMEOUT permit:post"]
    [held] = log.uses["pool", "pipeline"]
    assert (held.begun_at, held.ended_at) == (T0, T0 + 10 * SECOND)
    # The lock was given back as a failure, so another may try.
    again = run(*three, *[demand(LOCK_THEN_POST, worker=worker) for worker in "bc"], how=plan(wait_s=10))
    assert ends(again) == ["a", "b WAIT_TIMEOUT permit:post", "c WAIT_TIMEOUT lock:reply"]


def test_claims_at_once_are_a_bundle_and_hold_nothing_while_they_wait() -> None:
    log = run(
        demand("permit:post:3", worker="a"),
        demand("lock:reply:t + units:content + permit:post", worker="b"),
        demand("lock:reply:t", worker="c", at_s=1),
        how=plan(wait_s=10),
    )
    # Nobody holds the lock that b waits for the permit with.
    assert ends(log) == ["a", "b WAIT_TIMEOUT permit:post", "c"]
    assert log.uses["pool", "pipeline"] == []


def test_a_bundle_is_given_back_whole() -> None:
    bundle = "lock:analysis:t + units:content::3 + permit:post"
    log = run(demand(bundle, worker="a"), demand(bundle, worker="b"), how=plan(service_s=4))
    assert waits_s(log) == [0, 4]
    assert [use.is_used for use in log.uses["limit", "post"]] == [True, True]
    assert [(use.begun_at, use.ended_at) for use in log.uses["pool", "pipeline"]] == [
        (T0, T0 + 4 * SECOND),
        (T0 + 4 * SECOND, T0 + 8 * SECOND),
    ]


def test_of_a_bundle_s_claims_the_one_is_named_that_was_in_the_way() -> None:
    held = [demand("lock:reply:t", worker="a"), demand("units:content::3", worker="b")]
    log = run(
        *held,
        demand("permit:post + lock:reply:t", worker="c"),
        demand("permit:post + units:content", worker="d"),
        demand("units:file:f > units:file:f + permit:post", worker="e"),
        how=plan(wait_s=0),
    )
    assert ends(log)[2:] == ["c HELD lock:reply", "d UNITS_TAKEN units:content", "e HELD units:file"]


def test_without_waiting_it_asks_once() -> None:
    log = run(*[demand("permit:post", worker=worker) for worker in "abcd"], how=plan(wait_s=0))
    assert ends(log)[3] == "d WINDOW_FULL permit:post"


def test_units_are_held_for_the_service_and_come_back() -> None:
    log = run(*[demand("units:content::2", worker=worker) for worker in "abc"], how=plan(service_s=5))
    assert waits_s(log) == [0, 5, 10]


def test_units_of_a_refilling_pool() -> None:
    log = run(*[demand("units:quota:tweet", worker=worker) for worker in "abc"], how=plan(wait_s=200))
    assert waits_s(log)[:2] == [0, 0]
    assert 101 <= waits_s(log)[2] <= 101.2


def test_a_demand_s_own_hold_goes_before_the_plan_s() -> None:
    log = run(demand("units:file:a", hold_ns=7 * SECOND), demand("units:file:a", worker="b"))
    assert waits_s(log) == [0, 7]


def test_work_that_takes_longer_than_a_lease_keeps_it() -> None:
    # The kind's leases last a minute; a worker renews.
    log = run(
        demand("lock:analysis:t", hold_ns=HOUR), demand("lock:analysis:t", worker="b"), how=plan(wait_s=7200)
    )
    assert waits_s(log) == [0, 3600]


def test_a_worker_with_one_thing_at_once() -> None:
    log = run(*[demand("permit:post") for _ in range(3)], how=plan(at_once=1))
    assert waits_s(log) == [0, 1, 2]
    assert log.waiting == []


def test_a_thousand_refusals_in_a_row_of_a_worker_with_one_thing_at_once() -> None:
    demands = [demand("permit:post:3")] + [demand("permit:post:3") for _ in range(2_000)]
    log = run(*demands, how=plan(at_once=1, wait_s=0))
    assert ends(log)[1:] == ["w1 WINDOW_FULL permit:post"] * 2_000


def test_a_higher_class_goes_first() -> None:
    # Each wants all there is, so that they go one at a time.
    demands = [
        demand("permit:post:3", worker=name, priority=name) for name in ("medium", "low", "high", "critical")
    ]
    log = run(*demands, how=plan(wait_s=600))
    medium, low, high, critical = (attempt.granted_at for attempt in log.attempts)
    assert medium < critical < high < low


def test_an_error_of_the_core_is_a_refusal_with_its_reason() -> None:
    log = run(demand("permit:past"))
    assert ends(log) == ["w1 UNKNOWN_ENDPOINT permit:past"]


def test_a_lease_that_is_taken_away_is_a_refusal_too() -> None:
    kinds = {"post": KindRule(on_conflict=ESCALATE)}
    # Nobody decides within a minute, and then who holds it has 5 s left.
    rules = replace(RULES, kinds=kinds, escalation_default=3)
    hold_ns = 10 * 60 * SECOND
    demands = [demand("lock:post:t", worker=worker, hold_ns=hold_ns) for worker in "ab"]
    log = run(*demands, rules=rules, how=plan(wait_s=100))
    assert ends(log) == ["a LEASE_LOST", "b"]
    assert waits_s(log)[1] == 65
    assert [attempt.is_granted for attempt in log.attempts] == [False, True]


def test_stopped_it_tells_what_there_was() -> None:
    demands = [demand("permit:post", at_s=number) for number in range(10_000)]
    simulation = Simulation(RULES, demands, plan(wait_s=0))
    seen: list[int] = []

    def stop(ended: int) -> None:
        seen.append(ended)
        simulation.stop()

    log = simulation.run(stop)
    assert not log.is_complete
    ended = sum(attempt.ended_at > 0 for attempt in log.attempts)
    assert 0 < seen[0] <= ended < 10_000
    assert log.ended_at < T0 + 10_000 * SECOND


def test_equal_runs_have_equal_logs() -> None:
    demands = [demand(f"lock:reply:{n % 7} > permit:post", at_s=n, worker="*") for n in range(50)]
    assert ends(run(*demands, how=plan(5))) == ends(run(*demands, how=plan(5)))
