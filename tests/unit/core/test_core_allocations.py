from math import inf

import pytest
from core_desk import Desk, rules_of

from coordd.core.allocations import MaxMin
from coordd.core.commands import TakePermit
from coordd.core.limits import HOUR, SECOND
from coordd.core.rules import PROPORTIONAL, LimitRule


def filled(capacity: float, weights: list[int], demands: list[float]) -> list[float]:
    """Max-min by pouring drop by drop."""
    drop, levels = capacity / 100_000, [0.0] * len(weights)
    for _ in range(100_000):
        thirsty = [one for one, level in enumerate(levels) if level < demands[one]]
        if not thirsty:
            break
        lowest = min(thirsty, key=lambda one: levels[one] / weights[one])
        levels[lowest] += drop
    return levels


@pytest.mark.parametrize("one", range(4))
@pytest.mark.parametrize(
    "demands", [[0, 3, 40, 9], [inf, 1, inf, 2], [inf, inf, inf, inf], [0, 0, 0, 0], [5, 5, 5, 5]]
)
@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [1, 2, 3, 4]])
def test_share_is_what_water_would_find(weights: list[int], demands: list[float], one: int) -> None:
    poured = filled(40, weights, [*demands[:one], inf, *demands[one + 1 :]])
    assert MaxMin(40, weights, demands).share(one) == pytest.approx(poured[one], abs=0.01)


def test_own_lent_borrowed_and_allocated_add_up() -> None:
    fair = LimitRule(windows={100 * SECOND: 40}, use_within_ns=10 * SECOND, is_fair=True, share=PROPORTIONAL)
    desk = Desk(rules_of(limits={"fair": fair}, worker_weights={"w1": 2.0}))
    desk.permit("fair", "w1", count=5)
    desk.permit("fair", "w2", count=25)
    desk.permit("fair", "w3", count=10)
    desk.do(TakePermit(endpoint="fair", worker="w2", wait_ns=HOUR))
    views = desk.machine.allocations("fair", desk.now, after="", count=9)
    assert [view.name for view in views] == ["w1", "w2", "w3"]
    parts = [view.windows[0] for view in views]
    assert [part.own for part in parts] == [20, 10, 10]
    assert [part.used for part in parts] == [5, 25, 10]
    assert [part.lent for part in parts] == [15, 0, 0]
    assert [part.borrowed for part in parts] == [0, 15, 0]
    assert [part.allocated for part in parts] == [20, 25, 17]
    assert [part.remaining for part in parts] == [0, 0, 0]
    assert [(view.weight, view.efficiency, view.queued_units) for view in views] == [
        (2.0, 1.0, 0),
        (1.0, 1.0, 1),
        (1.0, 1.0, 0),
    ]
    assert all(view.demand_per_s > 0 for view in views)
    assert [view.name for view in desk.machine.allocations("fair", desk.now, after="w1", count=1)] == ["w2"]
    assert desk.machine.allocation("fair", "w1", desk.now) == views[0]


def test_limit_by_priority_has_no_shares(desk: Desk) -> None:
    desk.permit()
    assert desk.machine.allocations("search", desk.now, after="", count=9) == []


def test_where_many_share_what_all_want_is_as_of_up_to_a_second_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordd.core.allocations._FEW", 1)
    fair = LimitRule(windows={100 * SECOND: 40}, use_within_ns=10 * SECOND, is_fair=True)
    desk = Desk(rules_of(limits={"fair": fair}))

    def told(worker: str) -> tuple[int, int]:
        view = desk.machine.allocation("fair", worker, desk.now)
        return view.active_workers, view.windows[0].used

    desk.permit("fair", "w1")
    desk.permit("fair", "w2")
    assert told("w1") == (2, 1)
    # One that does not share is told as it would be, and nobody else hears of it.
    assert told("w9") == (3, 0)
    desk.permit("fair", "w2", count=3)
    desk.permit("fair", "w3")
    assert told("w2") == (2, 4)
    desk.advance(SECOND)
    assert told("w2") == (3, 4)
