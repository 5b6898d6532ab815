from core_desk import Desk, rules_of

from coordd.core.pools import Pool
from coordd.core.rules import CRITICAL, LOW, PoolRule


def test_what_is_in_reach() -> None:
    pool = Pool("p", PoolRule(capacity=4, capacity_min=2, capacity_max=8), None)
    assert [pool.is_in_reach(units) for units in (4, 5, 8, 9)] == [True, False, False, True]
    assert pool.adaptive is not None
    pool.adaptive.is_pinned = True
    assert pool.is_in_reach(5)
    assert pool.units_max() == 4


def test_what_a_class_can_hold_now_and_ever() -> None:
    pool = Pool("p", PoolRule(capacity=4, capacity_min=2, capacity_max=8, headroom={CRITICAL: 0.5}), None)
    assert (pool.units_of(LOW), pool.units_max_of(LOW)) == (2, 4)
    assert (pool.units_of(CRITICAL), pool.units_max_of(CRITICAL)) == (4, 8)


def test_the_view_says_what_is_configured() -> None:
    desk = Desk(
        rules_of(pools={"tweets": rules_of().pools["tweets"], "conns": PoolRule(capacity=3, overflow="deny")})
    )
    view = desk.machine.pool("conns", desk.now)
    assert (view.capacity_min, view.capacity_max, view.overflow, view.is_fair) == (0, 0, "deny", False)
