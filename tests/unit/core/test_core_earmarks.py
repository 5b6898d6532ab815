"""Patience: while it lasts, smaller requests go round a bundle; then what it wants is kept for it."""

from typing import Any

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import (
    AcquireBundle,
    ReleaseResource,
    RequestLock,
    ReserveResource,
    ScheduleRequest,
    TakePermit,
    UpdateLimit,
    UpdatePool,
)
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.outcomes import Granted, Queued, Reason
from coordd.core.rules import CRITICAL, LOW, PoolRule, TypeRule

PATIENCE = 10 * SECOND


@pytest.fixture
def desk() -> Desk:
    return Desk(rules_of(bundle_patience_ns=PATIENCE))


def acquire(**more: Any) -> AcquireBundle:
    """Ask for the lock on a, 2 of 3 units, and 2 of 3 permits."""
    asked: dict[str, Any] = {
        "worker": "big",
        "locks": (RequestLock(item="a", kind="like", worker="big", ttl_ns=HOUR),),
        "reservations": (ReserveResource(type="db", units=2, worker="big", ttl_ns=HOUR),),
        "permits": (TakePermit(endpoint="search", count=2, worker="big"),),
        "wait_ns": HOUR,
    }
    return AcquireBundle(**(asked | more))


def waiting(desk: Desk, **more: Any) -> int:
    outcome = desk.do(acquire(**more))
    assert isinstance(outcome, Queued)
    return outcome.id


def small(worker: str = "w9", **more: Any) -> list[Any]:
    """Ask for one of each that the bundle wants."""
    return [
        RequestLock(item="a", kind="like", worker=worker, **more),
        ReserveResource(type="db", units=2, worker=worker, **more),
        TakePermit(endpoint="search", count=2, worker=worker, **more),
    ]


def reasons(desk: Desk, **more: Any) -> list[Reason]:
    return [desk.refused(command).reason for command in small(**more)]


def test_while_it_has_patience_smaller_ones_go_round_it(desk: Desk) -> None:
    desk.lock("a", ttl_ns=HOUR)
    waiting(desk)
    desk.advance(PATIENCE - 1)
    for command in small()[1:]:
        assert isinstance(desk.do(command), Granted)


def test_without_patience_all_it_wants_is_set_aside(desk: Desk) -> None:
    held = desk.lock("a", ttl_ns=HOUR)
    waiter = waiting(desk)
    desk.advance(PATIENCE)
    assert reasons(desk) == [Reason.HELD, Reason.QUEUED_AHEAD, Reason.QUEUED_AHEAD]
    # What is beyond it may be had.
    desk.reserve("db", units=1)
    desk.permit("search")
    assert desk.refused(TakePermit(endpoint="search", worker="w9")).reason == Reason.QUEUED_AHEAD
    desk.release(held)
    assert desk.granted(waiter) is not None


def test_a_lock_is_set_aside_once_the_bundle_waits_for_something_else(desk: Desk) -> None:
    held = desk.reserve("db", units=2, ttl_ns=HOUR)
    waiter = waiting(desk)
    desk.lock("a", ttl_ns=SECOND)
    desk.advance(PATIENCE)
    refused = desk.refused(RequestLock(item="a", kind="like", worker="w9"))
    assert (refused.reason, refused.subject, refused.retry_at) == (Reason.QUEUED_AHEAD, "a", 0)
    desk.give_back(held)
    assert desk.granted(waiter) is not None


def test_who_goes_before_by_rank_still_does(desk: Desk) -> None:
    desk.lock("a", ttl_ns=HOUR)
    waiter = waiting(desk)
    desk.advance(PATIENCE)
    for command in small(priority=CRITICAL)[1:]:
        assert isinstance(desk.do(command), Granted)
    assert desk.granted(waiter) is None


def test_those_who_wait_behind_it_are_served_when_it_has_what_it_wants(desk: Desk) -> None:
    held = desk.lock("a", ttl_ns=HOUR)
    waiter = waiting(desk)
    desk.advance(PATIENCE)
    lock, units, permits = (desk.wait(command) for command in small(wait_ns=2 * HOUR))
    desk.release(held)
    bundle = desk.granted(waiter)
    assert [desk.granted(each) for each in (lock, units, permits)] == [None, None, None]
    held_lock, held_units, right = bundle.held
    desk.release(held_lock)
    desk.give_back(held_units)
    desk.report(right, is_sent=False)
    assert all(desk.granted(each) is not None for each in (lock, units, permits))


@pytest.mark.parametrize("end", ["away", "gone", "timeout"])
def test_nothing_is_set_aside_for_one_that_is_no_longer_there(desk: Desk, end: str) -> None:
    desk.lock("a", ttl_ns=HOUR)
    waiter = waiting(desk, request_id="r" if end == "away" else "", wait_ns=20 * SECOND)
    desk.advance(PATIENCE)
    units, permits = (desk.wait(command) for command in small(wait_ns=HOUR)[1:])
    if end == "timeout":
        desk.advance(PATIENCE)
        assert desk.refusal(waiter) is not None
    else:
        desk.leave(waiter)
    assert desk.granted(units) is not None
    assert desk.granted(permits) is not None
    assert desk.machine._queues.aside == {}


def test_one_that_comes_back_without_patience_has_it_set_aside_at_once(desk: Desk) -> None:
    desk.lock("a", ttl_ns=HOUR)
    waiter = waiting(desk, request_id="r")
    desk.leave(waiter)
    desk.advance(PATIENCE)
    assert waiting(desk, request_id="r") == waiter
    assert reasons(desk) == [Reason.HELD, Reason.QUEUED_AHEAD, Reason.QUEUED_AHEAD]
    desk.restart()
    desk.do(small()[1])
    assert waiting(desk, request_id="r") == waiter
    assert reasons(desk) == [Reason.HELD, Reason.UNITS_TAKEN, Reason.QUEUED_AHEAD]


def test_two_without_patience_do_not_wait_for_each_other(desk: Desk) -> None:
    held, file = desk.lock("a", ttl_ns=HOUR), desk.reserve("file", resource_id="x", ttl_ns=HOUR)
    first = waiting(desk)
    other = ReserveResource(type="file", resource_id="x", worker="other", ttl_ns=HOUR)
    second = waiting(desk, worker="other", locks=(), reservations=(other,))
    desk.advance(PATIENCE)
    # Both want two of three permits: the first has them set aside, the second must leave them.
    desk.give_back(file)
    assert desk.granted(second) is None
    desk.release(held)
    bundle = desk.granted(first)
    assert desk.granted(second) is None
    desk.report(bundle.held[2], is_sent=False)
    assert desk.granted(second) is not None


def test_it_is_set_aside_where_it_waited_before_too(desk: Desk) -> None:
    held = desk.lock("a", ttl_ns=HOUR)
    desk.reserve("db", "w2", units=2, ttl_ns=HOUR)
    waiter = waiting(desk)
    desk.advance(PATIENCE)
    desk.release(held)
    place = desk.machine.place(waiter, desk.now)
    assert place is not None
    assert place.blocked_by.subject == "conns"
    assert desk.refused(RequestLock(item="a", kind="like", worker="w9")).reason == Reason.QUEUED_AHEAD


def test_in_a_window_it_is_told_when_there_is_room_beside(desk: Desk) -> None:
    desk.lock("a", ttl_ns=HOUR)
    waiting(desk)
    desk.advance(PATIENCE)
    used = desk.permit("search")
    refused = desk.refused(TakePermit(endpoint="search", worker="w9"))
    assert refused.reason == Reason.QUEUED_AHEAD
    # Once what is used has left its window there is one beside the two.
    assert refused.retry_at > used.use_by + 100 * SECOND
    waiter = desk.wait(TakePermit(endpoint="search", worker="w9", wait_ns=HOUR))
    desk.advance(refused.retry_at - desk.now - 1)
    assert desk.granted(waiter) is None
    desk.advance(1)
    assert desk.granted(waiter) is not None


def test_a_full_window_says_so_also_where_some_of_it_is_set_aside(desk: Desk) -> None:
    desk.lock("a", ttl_ns=HOUR)
    desk.do(TakePermit(endpoint="search", count=3, worker="w2"))
    waiting(desk)
    desk.advance(PATIENCE)
    refused = desk.refused(TakePermit(endpoint="search", worker="w9"))
    assert (refused.reason, refused.window_ns) == (Reason.WINDOW_FULL, 100 * SECOND)


def test_a_booking_is_no_way_round_what_is_set_aside(desk: Desk) -> None:
    held = desk.lock("a", ttl_ns=HOUR)
    waiter = waiting(desk)
    desk.advance(PATIENCE)
    booking = desk.do(ScheduleRequest(endpoint="search", worker="w9", count=2)).booking
    assert booking.execute_at > desk.now
    desk.release(held)
    assert desk.granted(waiter) is not None


def test_units_beyond_are_had_as_more_come_free(desk: Desk) -> None:
    desk.lock("a", ttl_ns=HOUR)
    waiting(desk)
    desk.advance(PATIENCE)
    waiter = desk.wait(ReserveResource(type="db", units=2, worker="w9", wait_ns=HOUR))
    desk.do(UpdatePool(name="conns", capacity=4))
    assert desk.granted(waiter) is not None


def test_a_lower_class_ages_past_what_is_set_aside(desk: Desk) -> None:
    """Rank is rank: who has waited longer, by its class, goes before the bundle whatever is set aside."""
    desk.lock("a", ttl_ns=HOUR)
    desk.permit("search", "w2", count=3)
    low = desk.wait(TakePermit(endpoint="search", worker="w9", priority=LOW, wait_ns=HOUR))
    desk.advance(2 * MINUTE)
    waiter = waiting(desk)
    desk.advance(PATIENCE)
    assert desk.granted(low) is not None
    assert desk.granted(waiter) is None


def test_nothing_is_kept_of_a_limit_for_one_that_wants_more_than_it_allows_now(desk: Desk) -> None:
    desk.lock("a", ttl_ns=HOUR)
    waiting(desk)
    desk.advance(PATIENCE)
    desk.do(UpdateLimit(endpoint="search", windows={100 * SECOND: 1, 500 * SECOND: 4}))
    # The bundle finds out only when it has the lock; until then it must not stop the endpoint.
    desk.permit("search", worker="w9")


def test_where_workers_share_one_that_moves_there_leaves_it_to_whose_turn_it_is() -> None:
    pools = {**rules_of().pools, "conns": PoolRule(capacity=3, is_fair=True)}
    desk = Desk(rules_of(bundle_patience_ns=PATIENCE, pools=pools))
    desk.reserve("db", "big", units=1, ttl_ns=HOUR)
    held = desk.lock("a", ttl_ns=HOUR)
    waiter = waiting(desk, permits=())
    desk.advance(PATIENCE)
    # It has less than the bundle's worker, but it must leave what is set aside.
    other = desk.wait(ReserveResource(type="db", units=2, worker="w9", wait_ns=HOUR))
    desk.release(held)
    assert (desk.granted(waiter), desk.granted(other) is not None) == (None, True)


def test_one_that_waits_for_a_pool_to_grow_keeps_nothing_from_anybody() -> None:
    pools = {"conns": PoolRule(capacity=3, capacity_min=1, capacity_max=6)}
    types = {"db": TypeRule(ttl_ns=HOUR, pool="conns")}
    desk = Desk(rules_of(bundle_patience_ns=PATIENCE, pools=pools, types=types))
    wants_five = acquire(reservations=(ReserveResource(type="db", units=5, worker="big", ttl_ns=HOUR),))
    outcome = desk.do(wants_five)
    assert isinstance(outcome, Queued)
    desk.advance(PATIENCE)
    # Its patience runs out while it waits for the pool: its lock is for whoever asks.
    held = desk.do(small()[0])
    assert isinstance(held, Granted)
    # Grown, the pool lets it move on to wait for the lock; then what it wants is set aside.
    desk.do(UpdatePool(name="conns", capacity=5))
    assert desk.refused(ReserveResource(type="db", worker="w9")).reason == Reason.QUEUED_AHEAD


def test_one_that_meets_a_pool_that_has_shrunk_leaves_the_rest_to_others() -> None:
    pools = {"conns": PoolRule(capacity=5, capacity_min=1, capacity_max=6)}
    types = {"db": TypeRule(ttl_ns=HOUR, pool="conns")}
    desk = Desk(rules_of(bundle_patience_ns=PATIENCE, pools=pools, types=types))
    held, unit = desk.lock("a", ttl_ns=HOUR), desk.reserve(ttl_ns=HOUR)
    waiting(desk, reservations=(ReserveResource(type="db", units=5, worker="big", ttl_ns=HOUR),))
    desk.advance(PATIENCE)
    assert desk.refused(small()[1]).reason == Reason.QUEUED_AHEAD
    desk.do(ReleaseResource(id=unit.id, worker="w1", result=2))
    desk.release(held)
    # It waits for the pool to grow by now, and keeps neither the lock nor units.
    for command in small():
        assert isinstance(desk.do(command), Granted)
