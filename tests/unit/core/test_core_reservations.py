from typing import Any

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import (
    ForceRelease,
    ReleaseResource,
    RenewReservation,
    ReserveResource,
    UpdatePool,
)
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.outcomes import Expired, Reason
from coordd.core.rules import CRITICAL, TypeRule


def wanted(type: str = "db", worker: str = "w2", **more: Any) -> ReserveResource:
    return ReserveResource(type=type, worker=worker, **more)


def used(desk: Desk, pool: str = "conns") -> int:
    return desk.machine.pool(pool, desk.now).used


# -- what a type takes ---------------------------------------------------------------------------------------


def test_type_without_a_pool_is_exclusive_by_id(desk: Desk) -> None:
    held = desk.reserve("file", resource_id="x")
    assert (held.units, held.pool, held.expires_at) == (0, "", desk.now + MINUTE)
    refused = desk.refused(wanted("file", resource_id="x"))
    assert (refused.reason, refused.subject, refused.holder) == (Reason.HELD, "file/x", "w1")
    assert refused.retry_at == held.expires_at
    desk.reserve("file", resource_id="y")


def test_ids_of_different_types_are_different_resources(desk: Desk) -> None:
    desk.reserve("file", resource_id="x")
    desk.reserve("db", resource_id="x")


def test_type_with_a_pool_takes_units_and_where_given_the_id(desk: Desk) -> None:
    assert desk.reserve(units=2).units == 2
    held = desk.reserve(resource_id="x")
    assert (held.units, held.pool) == (1, "conns")
    assert desk.refused(wanted(resource_id="x")).reason == Reason.HELD
    assert desk.refused(wanted(resource_id="y")).reason == Reason.UNITS_TAKEN


def test_type_with_pools_takes_units_of_the_one_its_id_names_and_nothing_exclusively(desk: Desk) -> None:
    for worker in ("w1", "w2", "w3"):
        assert desk.reserve("quota", worker, resource_id="tweet").pool == "tweets"
    assert desk.refused(wanted("quota", resource_id="tweet")).reason == Reason.WINDOW_FULL


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("UNKNOWN_TYPE", wanted("unheard of")),
        ("UNKNOWN_OPERATION", wanted("quota", resource_id="unheard of")),
        ("UNKNOWN_OPERATION", wanted("quota")),
        ("NO_POOL", wanted("file", resource_id="x", units=1)),
        ("INVALID_ID", wanted("file")),
        ("UNITS_ABOVE_CAPACITY", wanted("db", units=4)),
        ("UNITS_ABOVE_CAPACITY", wanted("post", units=4)),
    ],
)
def test_what_can_never_be_granted_is_an_error(desk: Desk, reason: str, command: ReserveResource) -> None:
    assert desk.error(command) == reason


def test_units_of_a_pool_are_conserved(desk: Desk) -> None:
    first, second = desk.reserve(units=2), desk.reserve(units=1, ttl_ns=SECOND)
    assert used(desk) == 3
    desk.give_back(first)
    assert used(desk) == 1
    desk.advance(SECOND)
    assert used(desk) == 0
    desk.do(ForceRelease(id=desk.reserve(units=3).id, reason="stuck"))
    assert used(desk) == 0
    assert desk.give_back(second).reservation is None
    assert used(desk) == 0


# -- order ---------------------------------------------------------------------------------------------------


def test_reasons_are_looked_at_in_order(desk: Desk) -> None:
    """The resource (HELD, QUEUED_AHEAD), then the pool (UNITS_TAKEN, QUEUED_AHEAD)."""
    desk.reserve(resource_id="x", units=3)
    assert desk.refused(wanted(resource_id="x")).reason == Reason.HELD
    assert desk.refused(wanted(resource_id="y")).reason == Reason.UNITS_TAKEN


def test_large_request_at_the_head_is_not_overtaken_by_small_ones(desk: Desk) -> None:
    held = desk.reserve(units=1)
    large = desk.wait(wanted(units=3, wait_ns=HOUR))
    assert desk.refused(wanted(units=1, worker="w3")).reason == Reason.QUEUED_AHEAD
    small = desk.wait(wanted(units=1, worker="w3", wait_ns=HOUR))
    desk.give_back(held)
    assert desk.granted(large)
    assert not desk.granted(small)


def test_of_those_who_want_a_resource_and_units_the_longest_waiting_goes_first(desk: Desk) -> None:
    """What comes free at once is offered as a resource before it is offered as units."""
    held = desk.reserve(resource_id="x", units=3)
    early = desk.wait(wanted(resource_id="x", units=2, wait_ns=HOUR))
    desk.advance(SECOND)
    late = desk.wait(wanted(resource_id="y", units=2, worker="w3", wait_ns=HOUR))
    desk.give_back(held)
    assert desk.granted(early)
    assert not desk.granted(late)


def test_head_of_a_pool_s_queue_that_waits_for_a_resource_again_holds_nobody_up(desk: Desk) -> None:
    desk.reserve(units=1)
    head = desk.wait(wanted(resource_id="x", units=3, wait_ns=HOUR))
    behind = desk.wait(wanted(units=1, worker="w3", wait_ns=HOUR))
    desk.reserve(resource_id="x", worker="w4", priority=CRITICAL)
    assert desk.granted(behind)
    place = desk.machine.place(head, desk.now)
    assert place is not None
    assert (place.blocked_by.reason, place.blocked_by.holder) == (Reason.HELD, "w4")


def test_waiter_moves_on_from_the_resource_to_the_pool_with_its_rank(desk: Desk) -> None:
    held = desk.reserve(resource_id="x", units=1)
    other = desk.reserve(units=2)
    first = desk.wait(wanted(resource_id="x", units=2, wait_ns=HOUR))
    second = desk.wait(wanted(resource_id="x", units=1, worker="w3", wait_ns=HOUR))
    desk.give_back(held)
    place = desk.machine.place(first, desk.now)
    assert place is not None
    assert place.blocked_by.reason == Reason.UNITS_TAKEN
    # Behind the first, which has moved on, the resource is free and yet not to be had.
    assert desk.refused(wanted(resource_id="x", worker="w4")).reason == Reason.QUEUED_AHEAD
    desk.give_back(other)
    assert desk.granted(first)
    assert not desk.granted(second)
    desk.give_back(desk.granted(first))
    assert desk.granted(second)


# -- the end of a reservation --------------------------------------------------------------------------------


def test_release_wakes_the_next_at_once_and_is_idempotent(desk: Desk) -> None:
    held = desk.reserve("file", resource_id="x")
    waiter = desk.wait(wanted("file", resource_id="x", wait_ns=HOUR))
    assert desk.give_back(held).reservation is held
    assert desk.granted(waiter).worker == "w2"
    assert desk.give_back(held).reservation is None


def test_only_the_holder_releases_or_renews(desk: Desk) -> None:
    held = desk.reserve()
    assert desk.error(ReleaseResource(id=held.id, worker="w2")) == "NOT_HOLDER"
    assert desk.error(RenewReservation(id=held.id, worker="w2")) == "NOT_HOLDER"


def test_id_that_was_never_given_is_not_found(desk: Desk) -> None:
    never = desk.reserve().id + 1
    assert desk.error(ReleaseResource(id=never, worker="w1")) == "UNKNOWN_ID"
    assert desk.error(RenewReservation(id=never, worker="w1")) == "UNKNOWN_ID"


def test_renewal_counts_from_now(desk: Desk) -> None:
    held = desk.reserve()
    desk.advance(30 * SECOND)
    desk.do(RenewReservation(id=held.id, worker="w1"))
    assert desk.advance(MINUTE - 1) == []
    desk.do(RenewReservation(id=held.id, worker="w1", ttl_ns=5 * SECOND))
    assert desk.advance(5 * SECOND) == [Expired(grant=held)]
    assert desk.error(RenewReservation(id=held.id, worker="w1")) == "LEASE_LOST"


def test_lease_that_has_run_out_is_lost_even_before_its_tick(desk: Desk) -> None:
    held = desk.reserve()
    with pytest.raises(Exception, match="held no longer"):
        desk.machine.apply(RenewReservation(id=held.id, worker="w1"), held.expires_at)


def test_units_that_come_back_can_not_be_reported_unused(desk: Desk) -> None:
    held = desk.reserve(units=2)
    assert desk.error(ReleaseResource(id=held.id, worker="w1", unused_units=1)) == "INVALID_COUNT"
    file = desk.reserve("file", resource_id="x")
    assert desk.error(ReleaseResource(id=file.id, worker="w1", unused_units=1)) == "INVALID_COUNT"


# -- refilling pools -----------------------------------------------------------------------------------------


def test_units_of_a_refilling_pool_are_charged_and_do_not_come_back(desk: Desk) -> None:
    held = desk.reserve("post", units=3)
    assert (held.is_refilling, held.expires_at) == (True, desk.now + 10 * SECOND)
    desk.give_back(held)
    refused = desk.refused(wanted("post"))
    assert (refused.reason, refused.window_ns) == (Reason.WINDOW_FULL, 100 * SECOND)
    assert refused.retry_at == desk.now + 100 * SECOND + SECOND // 5


def test_units_reported_unused_come_back(desk: Desk) -> None:
    held = desk.reserve("post", units=3)
    assert desk.error(ReleaseResource(id=held.id, worker="w1", unused_units=4)) == "INVALID_COUNT"
    waiter = desk.wait(wanted("post", units=2, wait_ns=HOUR))
    desk.give_back(held, unused_units=2)
    assert desk.granted(waiter)


def test_unreported_units_stay_charged_at_their_latest_possible_use(desk: Desk) -> None:
    held = desk.reserve("post", units=3)
    assert desk.advance(10 * SECOND) == [Expired(grant=held)]
    assert desk.refused(wanted("post")).retry_at == desk.now + 100 * SECOND + SECOND // 5


def test_units_taken_by_force_stay_charged_at_their_latest_possible_use(desk: Desk) -> None:
    """Their holder may not know yet, and call until then."""
    held = desk.reserve("post", units=3)
    desk.do(ForceRelease(id=held.id, reason="stuck"))
    assert desk.refused(wanted("post")).retry_at == held.expires_at + 100 * SECOND + SECOND // 5


def test_units_of_a_refilling_pool_are_not_renewable(desk: Desk) -> None:
    held = desk.reserve("post")
    assert desk.error(RenewReservation(id=held.id, worker="w1")) == "NOT_RENEWABLE"


def test_id_of_a_type_with_a_refilling_pool_is_exclusive_until_its_time_has_passed(desk: Desk) -> None:
    desk.reserve("post", resource_id="x")
    assert desk.refused(wanted("post", resource_id="x")).reason == Reason.HELD
    waiter = desk.wait(wanted("post", resource_id="x", wait_ns=HOUR))
    desk.advance(10 * SECOND)
    assert desk.granted(waiter)


# -- views and recovery --------------------------------------------------------------------------------------


def test_availability_of_what_is_free(desk: Desk) -> None:
    view = desk.machine.availability(wanted(units=2), desk.now)
    assert (view.blocked_by, view.position, view.wait_ns) == (None, 0, 0)
    assert (view.free_units, view.capacity) == (3, 3)
    assert desk.machine.availability(wanted("file", resource_id="x"), desk.now).capacity == 0


def test_availability_of_what_is_not_says_why_and_how_long(desk: Desk) -> None:
    held = desk.reserve(units=2, resource_id="x")
    view = desk.machine.availability(wanted(units=2), desk.now)
    assert view.blocked_by is not None
    assert (view.blocked_by.reason, view.position, view.wait_ns) == (Reason.UNITS_TAKEN, 1, None)
    desk.advance(30 * SECOND)
    desk.give_back(held)
    held = desk.reserve(units=2, resource_id="x")
    assert desk.machine.availability(wanted(units=2), desk.now).wait_ns == 10 * SECOND
    assert desk.machine.availability(wanted(resource_id="x"), desk.now).wait_ns == 30 * SECOND
    desk.advance(40 * SECOND)
    assert desk.machine.availability(wanted(resource_id="x"), desk.now).wait_ns == 0


def test_estimate_for_a_resource_that_is_free_but_wanted(desk: Desk) -> None:
    desk.machine._ledger.observe_hold("reservation/db", 10 * SECOND)
    desk.reserve(units=2)
    desk.wait(wanted(resource_id="x", units=2, wait_ns=HOUR))
    desk.reserve("db", "w5", units=1, priority=CRITICAL)
    assert desk.machine.availability(wanted(resource_id="x", worker="w3"), desk.now).wait_ns == 10 * SECOND


def test_estimate_for_a_refilling_pool_is_when_its_window_frees(desk: Desk) -> None:
    desk.reserve("post", units=3)
    view = desk.machine.availability(wanted("post"), desk.now)
    assert view.wait_ns == 110 * SECOND + SECOND // 5
    assert view.free_units == 0


def test_pool_views(desk: Desk) -> None:
    desk.reserve(units=2)
    desk.reserve("post")
    desk.wait(wanted(units=2, wait_ns=HOUR))
    conns, tweets = desk.machine.pools(desk.now)
    assert (conns.name, conns.capacity, conns.used, conns.free, conns.queued) == ("conns", 3, 2, 1, 1)
    assert (tweets.name, tweets.capacity, tweets.used, tweets.free) == ("tweets", 3, 1, 2)
    assert [window.remaining for window in tweets.windows] == [2]
    assert not conns.is_overridden
    assert not tweets.is_overridden


def test_lowered_capacity_shows_no_less_than_nothing_free(desk: Desk) -> None:
    desk.reserve(units=3)
    desk.do(UpdatePool(name="conns", capacity=2))
    view = desk.machine.pool("conns", desk.now)
    assert (view.used, view.free, view.is_overridden) == (3, 0, True)


def test_recovered_reservations_hold_as_before(desk: Desk) -> None:
    held = desk.reserve(units=2, resource_id="x", request_id="r1")
    spent = desk.reserve("post", units=3)
    desk.restart(down_ns=5 * SECOND)
    assert desk.reserve(units=2, resource_id="x", request_id="r1").id == held.id
    assert desk.refused(wanted(resource_id="x")).reason == Reason.HELD
    assert desk.refused(wanted(units=2)).reason == Reason.UNITS_TAKEN
    # Units of a refilling pool are not extended: upstream has counted them by then.
    assert desk.advance(spent.expires_at - desk.now)[0].grant.id == spent.id  # type: ignore[union-attr]


def test_reservation_whose_type_or_pool_is_configured_no_longer_runs_on_to_its_end(desk: Desk) -> None:
    held, spent = desk.reserve(units=2, resource_id="x"), desk.reserve("quota", resource_id="tweet")
    desk.restart(rules_of(types={"file": TypeRule()}, pools={}))
    assert desk.give_back(held).reservation.id == held.id
    assert desk.give_back(spent).reservation.id == spent.id
    assert desk.machine.counts().reservations == 0


def test_reservation_without_a_pool_has_none_to_give_back_to(desk: Desk) -> None:
    held = desk.reserve("file", resource_id="x")
    desk.restart()
    desk.give_back(held)
    desk.reserve("file", "w2", resource_id="x")


def test_estimate_for_units_alone_comes_from_hold_times(desk: Desk) -> None:
    held = [desk.reserve() for _ in range(3)]
    desk.advance(10 * SECOND)
    desk.give_back(held[0])
    desk.reserve()
    wanted = ReserveResource(type="db", worker="w9")
    assert desk.machine.availability(wanted, desk.now).wait_ns == 10 * SECOND // 3


def test_estimate_for_a_resource_without_a_pool_comes_from_hold_times(desk: Desk) -> None:
    held = desk.reserve("file", resource_id="f")
    desk.advance(10 * SECOND)
    desk.give_back(held)
    desk.reserve("file", resource_id="f")
    wanted = ReserveResource(type="file", worker="w9", resource_id="f")
    assert desk.machine.availability(wanted, desk.now).wait_ns == 10 * SECOND
