from core_desk import Desk, rules_of

from coordd.core.commands import ReserveResource
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.pools import Pool
from coordd.core.rules import CRITICAL, LOW, MEDIUM, LimitRule, PoolRule


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


def test_of_a_refilling_pool_a_class_has_what_its_headroom_leaves() -> None:
    limit = LimitRule(windows={100 * SECOND: 4}, headroom={CRITICAL: 0.5})
    desk = Desk(rules_of(pools={"conns": PoolRule(capacity=3), "tweets": PoolRule(limit=limit)}))
    assert (
        desk.error(ReserveResource(type="post", worker="w", units=3, priority=LOW)) == "UNITS_ABOVE_CAPACITY"
    )
    desk.reserve("post", units=4, priority=CRITICAL)


def test_a_class_may_pass_those_who_must_leave_it_room() -> None:
    rule = PoolRule(capacity=4, headroom={MEDIUM: 0.5})
    desk = Desk(rules_of(pools={"conns": rule, "tweets": rules_of().pools["tweets"]}))
    desk.reserve(units=2, priority=LOW, ttl_ns=HOUR)
    wants = ReserveResource(type="db", worker="w", units=2, priority=LOW, wait_ns=HOUR)
    low = desk.wait(wants)
    # By now it goes before any newcomer of the class above.
    desk.advance(5 * MINUTE)
    desk.reserve(units=2, priority=MEDIUM)
    assert desk.granted(low) is None


def test_first_for_a_resource_that_must_leave_units_to_a_class_above_leaves_it_the_resource_too() -> None:
    rule = PoolRule(capacity=4, headroom={MEDIUM: 0.5})
    desk = Desk(rules_of(pools={"conns": rule, "tweets": rules_of().pools["tweets"]}))
    desk.reserve(units=2, priority=LOW, ttl_ns=HOUR)
    held = desk.reserve(resource_id="x", priority=MEDIUM, ttl_ns=HOUR)
    wants = {"type": "db", "resource_id": "x", "wait_ns": HOUR}
    low = desk.wait(ReserveResource(worker="w", priority=LOW, **wants))
    desk.advance(5 * MINUTE)
    medium = desk.wait(ReserveResource(worker="v", priority=MEDIUM, **wants))
    desk.give_back(held)
    assert (desk.granted(low), desk.granted(medium) is not None) == (None, True)
