"""Who takes which demand, and when."""

from msgspec.structs import replace
from planning_desk import RULES, demand

from coordd.planning.demands import Demand
from coordd.planning.fleet import Attempt, Fleet, attempts_of, weighed


def test_named_each_in_turn_and_every_one() -> None:
    demands = [demand("permit:post", worker=worker) for worker in ("bot", "", "", "", "*")]
    workers = [attempt.worker for attempt in attempts_of(demands, 2, 0)]
    assert workers[:4] == ["bot", "w1", "w2", "w1"]
    assert sorted(workers[4:]) == ["w1", "w2"]


def test_the_seed_decides_who_asks_first() -> None:
    demands = [demand("permit:post", worker="*")] * 20

    def order(seed: int) -> list[str]:
        return [attempt.worker for attempt in attempts_of(demands, 5, seed)]

    assert order(1) == order(1) != order(2)
    # Nobody is first each time.
    assert len(set(order(0)[::5])) > 1


def test_a_busy_worker_leaves_for_later() -> None:
    fleet = Fleet(at_once=1)
    first, second, third = (Attempt(demand("permit:post"), worker) for worker in ("a", "a", "b"))
    assert [fleet.begins(attempt) for attempt in (first, second, third)] == [True, False, True]
    assert fleet.next("b") is None
    assert fleet.next("a") is second
    assert fleet.next("a") is None
    assert fleet.begins(first)


def test_any_number_at_once() -> None:
    fleet = Fleet(at_once=0)
    assert all(fleet.begins(Attempt(demand("permit:post"), "a")) for _ in range(100))


def test_a_worker_has_the_weight_of_its_class_unless_its_own_is_said() -> None:
    rules = replace(RULES, worker_class_weights={"big": 4.0})
    demands = [
        Demand(line=1, at_ns=1, worker=worker, steps=(), worker_class=name)
        for worker, name in (("a", "big"), ("heavy", "big"), ("b", ""), ("a", ""))
    ]
    assert weighed(rules, demands).worker_weights == {"a": 4.0, "heavy": 2.0}
    assert weighed(RULES, []) == RULES
