from typing import Any

import pytest
from core_desk import Desk, rules_of

from coordd.core.capacity import OVERLOADED, SUCCESS
from coordd.core.commands import AcquireBundle, ReleaseBundle, ReleaseResource, ReserveResource, UpdatePool
from coordd.core.limits import MINUTE, SECOND
from coordd.core.outcomes import CapacityChanged, Granted, Reason
from coordd.core.records import Bundle, Reservation, Table
from coordd.core.rules import CRITICAL, LOW, PoolRule, Rules, TypeRule


def adaptive_rules(**changes: Any) -> Rules:
    rule: dict[str, Any] = {
        "capacity": 10,
        "capacity_min": 2,
        "capacity_max": 20,
        "latency_target_ns": SECOND,
        "decrease": 0.5,
        "recovery_ns": MINUTE,
    }
    return rules_of(
        types={"db": TypeRule(ttl_ns=10 * MINUTE, pool="conns")}, pools={"conns": PoolRule(**rule | changes)}
    )


@pytest.fixture
def desk() -> Desk:
    return Desk(adaptive_rules())


def end(desk: Desk, held: Reservation, result: int = SUCCESS, latency_ns: int = 0) -> None:
    desk.do(ReleaseResource(id=held.id, worker=held.worker, result=result, latency_ns=latency_ns))


def capacity(desk: Desk) -> int:
    return desk.machine.pool("conns", desk.now).capacity


def milli(desk: Desk) -> int:
    ((_, capacity_milli, _, _),) = desk.machine.snapshot()[Table.CAPACITIES]
    assert isinstance(capacity_milli, int)
    return capacity_milli


def overload(desk: Desk) -> None:
    desk.advance(1)
    end(desk, desk.reserve(), OVERLOADED)


# -- what work says ------------------------------------------------------------------------------------------


def test_overload_decreases_by_a_factor_and_tells(desk: Desk) -> None:
    overload(desk)
    assert capacity(desk) == 5
    assert desk.notices[-1:] == [CapacityChanged(pool="conns", before=10, after=5)]


def test_slow_work_is_as_overload_though_it_went_well(desk: Desk) -> None:
    end(desk, desk.reserve(), SUCCESS, latency_ns=SECOND + 1)
    assert capacity(desk) == 5
    desk.advance(1)
    end(desk, desk.reserve(), latency_ns=SECOND, result=0)
    assert milli(desk) == 5_000


def test_what_a_bundle_says_is_of_each_of_its_reservations(desk: Desk) -> None:
    def take() -> Bundle:
        outcome = desk.do(AcquireBundle(worker="w1", reservations=(ReserveResource(type="db", worker="w1"),)))
        assert isinstance(outcome, Granted)
        assert isinstance(outcome.grant, Bundle)
        return outcome.grant

    desk.do(ReleaseBundle(id=take().id, worker="w1"))
    assert capacity(desk) == 10
    desk.do(ReleaseBundle(id=take().id, worker="w1", result=OVERLOADED))
    assert capacity(desk) == 5
    desk.advance(1)
    desk.do(ReleaseBundle(id=take().id, worker="w1", result=SUCCESS, latency_ns=SECOND + 1))
    assert capacity(desk) == 2


def test_without_a_target_no_latency_is_too_long() -> None:
    desk = Desk(adaptive_rules(latency_target_ns=0))
    end(desk, desk.reserve(), 0, latency_ns=MINUTE)
    assert capacity(desk) == 10


def test_success_of_a_pool_in_use_adds_one_unit_each_time_the_capacity_has_come_round(desk: Desk) -> None:
    end(desk, desk.reserve(units=5))
    assert milli(desk) == 10_500
    end(desk, desk.reserve(units=10))
    # 10 units of 10.5, rounded up to a thousandth.
    assert milli(desk) == 11_453
    assert desk.notices[-1:] == [CapacityChanged(pool="conns", before=10, after=11)]


def test_success_of_a_pool_that_is_hardly_used_says_nothing(desk: Desk) -> None:
    end(desk, desk.reserve(units=4))
    end(desk, desk.reserve(units=9), result=0)
    assert desk.machine.snapshot()[Table.CAPACITIES] == []


def test_a_large_pool_grows_at_all() -> None:
    desk = Desk(adaptive_rules(capacity=5_000, capacity_max=6_000))
    held = desk.reserve(units=2_500)
    end(desk, desk.reserve())
    assert milli(desk) == 5_000_001
    end(desk, held)


def test_what_was_begun_before_the_last_decrease_is_ignored(desk: Desk) -> None:
    held = [desk.reserve() for _ in range(10)]
    desk.advance(SECOND)
    end(desk, held[0], OVERLOADED)
    for other in held[1:]:
        end(desk, other, OVERLOADED if other.id % 2 else SUCCESS)
    assert milli(desk) == 5_000
    overload(desk)
    assert milli(desk) == 2_500


def test_the_capacity_stays_within_its_bounds(desk: Desk) -> None:
    for _ in range(5):
        overload(desk)
    assert milli(desk) == 2_000
    desk.advance(1)
    for _ in range(1_000):
        end(desk, desk.reserve(units=capacity(desk)))
    assert milli(desk) == 20_000
    desk.commit()
    end(desk, desk.reserve(units=20))
    assert Table.CAPACITIES not in desk.machine.take_changes()[0]


def test_a_reservation_that_runs_out_says_nothing(desk: Desk) -> None:
    desk.reserve(units=10)
    desk.advance(10 * MINUTE)
    assert capacity(desk) == 10


# -- what time says ------------------------------------------------------------------------------------------


def test_what_was_lost_comes_back_one_unit_at_a_time(desk: Desk) -> None:
    overload(desk)
    desk.advance(MINUTE - 1)
    assert milli(desk) == 5_000
    desk.advance(1)
    assert milli(desk) == 6_000
    desk.advance(20 * MINUTE)
    assert milli(desk) == 10_000
    assert desk.machine.next_deadline() is None or desk.machine.next_deadline() != desk.now


def test_a_decrease_begins_the_recovery_anew(desk: Desk) -> None:
    overload(desk)
    desk.advance(MINUTE // 2)
    overload(desk)
    desk.advance(MINUTE - 1)
    assert milli(desk) == 2_500
    desk.advance(1)
    assert milli(desk) == 3_500


def test_what_was_earned_above_the_configured_capacity_does_not_fade(desk: Desk) -> None:
    for _ in range(4):
        end(desk, desk.reserve(units=10))
    earned = milli(desk)
    desk.advance(60 * MINUTE)
    assert milli(desk) == earned > 13_000


def test_recovery_goes_on_while_the_daemon_is_down(desk: Desk) -> None:
    overload(desk)
    desk.restart(down_ns=3 * MINUTE)
    desk.advance(0)
    assert milli(desk) == 8_000
    desk.advance(MINUTE)
    assert milli(desk) == 9_000


# -- who waits -----------------------------------------------------------------------------------------------


def wants(units: int = 1, worker: str = "w2", **more: Any) -> ReserveResource:
    return ReserveResource(type="db", worker=worker, units=units, wait_ns=10 * MINUTE, **more)


def test_waiters_are_served_when_the_capacity_grows(desk: Desk) -> None:
    overload(desk)
    desk.reserve(units=5)
    waiter = desk.wait(wants())
    desk.advance(MINUTE)
    assert desk.granted(waiter) is not None


def test_who_wants_more_than_the_bound_is_an_error(desk: Desk) -> None:
    assert desk.error(wants(21)) == "UNITS_ABOVE_CAPACITY"


def test_who_wants_more_than_there_is_now_waits_and_holds_nobody_up(desk: Desk) -> None:
    overload(desk)
    assert desk.refused(ReserveResource(type="db", worker="w2", units=7)).reason == Reason.UNITS_TAKEN
    large, larger = desk.wait(wants(7)), desk.wait(wants(8))
    place = desk.machine.place(large, desk.now)
    assert place is not None
    assert (place.position, place.wait_ns, place.blocked_by.subject) == (1, None, "conns")
    assert desk.machine.pool("conns", desk.now).queued == 2
    end(desk, desk.reserve(units=1), 0)
    desk.advance(2 * MINUTE)
    assert desk.granted(large) is not None
    desk.give_back(desk.granted(large))
    desk.advance(MINUTE)
    assert desk.granted(larger) is not None


def test_first_for_a_resource_that_wants_more_than_there_is_now_leaves_it_to_the_next(desk: Desk) -> None:
    held = desk.reserve(resource_id="x")
    large, small = desk.wait(wants(6, resource_id="x")), desk.wait(wants(1, resource_id="x"))
    desk.advance(1)
    overload(desk)
    desk.give_back(held)
    assert (desk.granted(large), desk.granted(small) is not None) == (None, True)


def test_once_in_reach_they_go_by_rank(desk: Desk) -> None:
    overload(desk)
    held = desk.reserve(units=4)
    first = desk.wait(wants(6, request_id="r"))
    # It does not have to wait for what is out of reach.
    second = desk.reserve()
    desk.advance(MINUTE)
    third = desk.wait(wants(1))
    desk.give_back(held)
    assert (desk.granted(first), desk.granted(third)) == (None, None), "what is in reach is not overtaken"
    desk.give_back(second)
    assert desk.granted(first) is not None


def test_a_waiter_whose_units_are_gone_from_the_pool_lets_others_by(desk: Desk) -> None:
    held = [desk.reserve(units=4), desk.reserve(units=5)]
    large, small = desk.wait(wants(8)), desk.wait(wants(1))
    assert desk.granted(small) is None
    desk.advance(1)
    end(desk, held[0], OVERLOADED)
    assert capacity(desk) == 5
    assert desk.granted(small) is None
    desk.give_back(held[1])
    assert (desk.granted(large), desk.granted(small) is not None) == (None, True)


def test_what_is_set_aside_out_of_reach_holds_nobody_up(desk: Desk) -> None:
    overload(desk)
    desk.reserve(units=1)
    bundle = AcquireBundle(
        worker="w3",
        reservations=(ReserveResource(type="db", worker="w3", units=8),),
        permits=(),
        locks=(),
        not_engaged=(),
        wait_ns=10 * MINUTE,
    )
    waiter = desk.wait(bundle)  # type: ignore[arg-type]
    desk.advance(30 * SECOND)
    desk.reserve(units=4, worker="w4")
    assert desk.granted(waiter) is None


def test_headroom_is_of_the_capacity_as_it_is(desk: Desk) -> None:
    desk = Desk(adaptive_rules(headroom={CRITICAL: 0.5}))
    overload(desk)
    assert desk.error(wants(11, priority=LOW)) == "UNITS_ABOVE_CAPACITY"
    low = desk.wait(wants(3, priority=LOW))
    desk.advance(MINUTE)
    assert desk.granted(low) is not None


# -- operators -----------------------------------------------------------------------------------------------


def test_a_pinned_pool_does_not_adapt(desk: Desk) -> None:
    overload(desk)
    desk.do(UpdatePool(name="conns", capacity=12))
    overload(desk)
    desk.advance(60 * MINUTE)
    assert capacity(desk) == 12
    assert desk.machine.pool("conns", desk.now).is_overridden
    assert desk.machine.snapshot()[Table.CAPACITIES] == []


def test_it_can_be_pinned_to_what_is_configured(desk: Desk) -> None:
    desk.do(UpdatePool(name="conns", capacity=10))
    overload(desk)
    desk.restart()
    assert desk.machine.pool("conns", desk.now).is_overridden
    assert capacity(desk) == 10


def test_unpinned_it_adapts_from_where_it_is_within_its_bounds(desk: Desk) -> None:
    desk.do(UpdatePool(name="conns", capacity=50))
    assert desk.error(wants(51)) == "UNITS_ABOVE_CAPACITY"
    desk.do(UpdatePool(name="conns", is_unpinned=True))
    assert capacity(desk) == 20
    assert not desk.machine.pool("conns", desk.now).is_overridden
    overload(desk)
    assert capacity(desk) == 10
    desk.do(UpdatePool(name="conns", is_unpinned=True))
    assert capacity(desk) == 10, "it was not pinned"
    adaptive = next(iter(desk.machine._reservations)).adaptive
    assert adaptive is not None
    desk.machine._reservations.capacities.unpin(adaptive, desk.now)
    desk.do(UpdatePool(name="conns", capacity=3))
    desk.do(UpdatePool(name="conns", is_unpinned=True))
    desk.advance(MINUTE)
    assert milli(desk) == 4_000


def test_pinned_below_what_a_waiter_wants_it_is_refused(desk: Desk) -> None:
    waiters = [desk.wait(wants(15)), desk.wait(wants(18)), desk.wait(wants(12))]
    desk.do(UpdatePool(name="conns", capacity=13))
    assert [desk.refusal(waiter) is not None for waiter in waiters] == [True, True, False]
    assert desk.granted(waiters[2]) is not None


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("INVALID_COUNT", UpdatePool(name="conns", capacity=3, is_unpinned=True)),
        ("INVALID_COUNT", UpdatePool(name="conns", windows={1: 1}, is_unpinned=True)),
        ("UNKNOWN_POOL", UpdatePool(name="nope", is_unpinned=True)),
    ],
)
def test_what_unpinning_is_not(desk: Desk, reason: str, command: UpdatePool) -> None:
    assert desk.error(command) == reason


def test_a_pool_without_bounds_can_not_be_unpinned() -> None:
    assert Desk().error(UpdatePool(name="conns", is_unpinned=True)) == "NOT_ADAPTIVE"


# -- after a restart -----------------------------------------------------------------------------------------


def test_what_was_learnt_is_kept(desk: Desk) -> None:
    held = [desk.reserve() for _ in range(2)]
    desk.advance(1)
    end(desk, held[0], OVERLOADED)
    before = desk.machine.snapshot()[Table.CAPACITIES]
    desk.restart()
    assert desk.machine.snapshot()[Table.CAPACITIES] == before
    assert capacity(desk) == 5
    end(desk, held[1], OVERLOADED)
    assert capacity(desk) == 5, "still of before the last decrease"


def test_new_bounds_hold_for_what_was_stored(desk: Desk) -> None:
    overload(desk)
    desk.restart(adaptive_rules(capacity=9, capacity_min=8))
    assert capacity(desk) == 8
    desk.advance(10 * MINUTE)
    assert capacity(desk) == 9
    desk.restart(adaptive_rules(capacity=6, capacity_max=7))
    assert capacity(desk) == 7


def test_a_pool_that_adapts_no_longer_forgets(desk: Desk) -> None:
    overload(desk)
    desk.restart(adaptive_rules(capacity_min=0, capacity_max=0))
    assert capacity(desk) == 10
    desk.commit()
    assert desk.rows[Table.CAPACITIES] == {}


def test_a_late_deadline_of_a_pinned_pool_changes_nothing(desk: Desk) -> None:
    adaptive = next(iter(desk.machine._reservations)).adaptive
    assert adaptive is not None
    desk.machine._reservations.capacities.due(adaptive, desk.now)
    assert desk.machine.snapshot()[Table.CAPACITIES] == []
