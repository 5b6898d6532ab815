"""What a pool does with those it has no units for: `reservations`, by each policy."""

from typing import Any

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import AcquireBundle, LeaveWait, ReserveResource, UpdatePool
from coordd.core.limits import MINUTE, SECOND
from coordd.core.outcomes import Granted, Reason
from coordd.core.rules import CRITICAL, LOW, PoolRule, Rules, TypeRule


def overflow_rules(**lender: Any) -> Rules:
    plain = rules_of()
    return rules_of(
        types={
            "file": TypeRule(ttl_ns=MINUTE),
            "db": TypeRule(ttl_ns=MINUTE, pool="conns"),
            "spare": TypeRule(ttl_ns=MINUTE, pool="spares"),
            "other": TypeRule(ttl_ns=MINUTE, pool="others"),
            "strict": TypeRule(ttl_ns=MINUTE, pool="stricts"),
            "top": TypeRule(ttl_ns=MINUTE, pool="tops"),
            "post": TypeRule(ttl_ns=MINUTE, pool="tweets"),
        },
        pools={
            "conns": PoolRule(capacity=2, overflow="borrow", borrow_from="spares"),
            "others": PoolRule(capacity=1, overflow="borrow", borrow_from="spares"),
            "spares": PoolRule(**{"capacity": 3} | lender),
            "stricts": PoolRule(capacity=1, overflow="deny"),
            "tops": PoolRule(capacity=1, overflow="borrow", borrow_from="conns"),
            "tweets": PoolRule(limit=plain.pools["tweets"].limit, overflow="deny"),
        },
    )


@pytest.fixture
def desk() -> Desk:
    return Desk(overflow_rules())


def wants(type: str = "db", worker: str = "w2", **more: Any) -> ReserveResource:
    return ReserveResource(type=type, worker=worker, **{"wait_ns": MINUTE} | more)


def used(desk: Desk) -> list[int]:
    return [desk.machine.pool(pool, desk.now).used for pool in ("conns", "others", "spares")]


# -- deny ----------------------------------------------------------------------------------------------------


def test_deny_refuses_even_who_would_wait(desk: Desk) -> None:
    held = desk.reserve("strict")
    refused = desk.refused(wants("strict"))
    assert (refused.reason, refused.subject, refused.position) == (Reason.UNITS_TAKEN, "stricts", 0)
    desk.give_back(held)
    desk.reserve("strict")


def test_deny_of_a_refilling_pool_says_when_to_come_back(desk: Desk) -> None:
    desk.reserve("post", units=3)
    refused = desk.refused(wants("post"))
    assert refused.reason == Reason.WINDOW_FULL
    assert refused.retry_at > desk.now


def test_availability_of_what_denies_promises_no_place(desk: Desk) -> None:
    desk.reserve("strict")
    seen = desk.machine.availability(wants("strict"), desk.now)
    assert seen.blocked_by is not None
    assert (seen.position, seen.wait_ns) == (0, None)


def test_who_moves_on_to_a_pool_that_denies_is_refused(desk: Desk) -> None:
    desk.do(UpdatePool(name="stricts", capacity=2))
    held = desk.reserve("strict", resource_id="x")
    waiter = desk.wait(wants("strict", resource_id="x"))
    desk.reserve("strict")
    desk.do(UpdatePool(name="stricts", capacity=1))
    desk.give_back(held)
    refusal = desk.refusal(waiter)
    assert refusal is not None
    assert refusal.reason == Reason.UNITS_TAKEN


# -- borrow --------------------------------------------------------------------------------------------------


def test_units_are_borrowed_when_ones_own_are_taken_and_go_back_where_they_came_from(desk: Desk) -> None:
    own, borrowed = desk.reserve(units=2), desk.reserve(units=2)
    assert (own.pool, borrowed.pool) == ("conns", "spares")
    assert used(desk) == [2, 0, 2]
    desk.give_back(borrowed)
    assert used(desk) == [2, 0, 0]
    desk.restart()
    assert used(desk) == [2, 0, 0]


def test_borrowed_units_are_recovered_where_they_came_from(desk: Desk) -> None:
    desk.reserve(units=2)
    borrowed = desk.reserve(units=2)
    desk.restart()
    assert used(desk) == [2, 0, 2]
    assert desk.reserve("spare").pool == "spares"
    assert desk.refused(wants("spare", wait_ns=0)).reason == Reason.UNITS_TAKEN
    desk.give_back(borrowed)
    assert used(desk) == [2, 0, 1]


def test_never_more_is_lent_than_there_is(desk: Desk) -> None:
    desk.reserve(units=2)
    desk.reserve(units=2)
    assert desk.refused(wants(units=2, wait_ns=0)).subject == "conns"
    assert desk.reserve().pool == "spares"
    desk.reserve("other")
    assert desk.refused(wants("other", wait_ns=0)).subject == "others"
    assert used(desk) == [2, 1, 3]


def test_nothing_is_lent_while_somebody_waits_for_it(desk: Desk) -> None:
    desk.reserve(units=2)
    desk.reserve("spare", units=2)
    waiter = desk.wait(wants("spare", units=2))
    assert desk.refused(wants(wait_ns=0)).reason == Reason.UNITS_TAKEN
    desk.do(LeaveWait(id=waiter))
    assert desk.reserve().pool == "spares"


def test_nothing_is_borrowed_past_those_who_wait_here(desk: Desk) -> None:
    desk.reserve(units=2)
    desk.reserve("spare", units=2)
    desk.wait(wants(units=2))
    assert desk.refused(wants(wait_ns=0)).reason == Reason.UNITS_TAKEN
    assert desk.reserve("other").pool == "others"
    assert desk.reserve("other").pool == "spares", "who waits elsewhere to borrow has no claim on it"


def test_a_waiter_borrows_as_soon_as_it_can(desk: Desk) -> None:
    desk.reserve(units=2)
    held = desk.reserve("spare", units=3)
    desk.reserve("other")
    waiters = [desk.wait(wants()), desk.wait(wants("other")), desk.wait(wants()), desk.wait(wants())]
    desk.give_back(held)
    pools = [granted and granted.pool for granted in map(desk.granted, waiters)]
    assert pools == ["spares", None, "spares", "spares"], "one borrower's queue after the other, by name"


def test_a_waiter_borrows_when_those_at_the_lender_give_up(desk: Desk) -> None:
    desk.reserve(units=2)
    desk.reserve("spare", units=2)
    desk.wait(wants("spare", units=2, wait_ns=SECOND))
    waiter = desk.wait(wants())
    desk.advance(SECOND)
    assert desk.granted(waiter).pool == "spares"


def test_those_who_borrow_from_a_borrower_hear_of_it_when_its_queue_has_gone(desk: Desk) -> None:
    desk.reserve()
    held = desk.reserve("spare", units=3)
    desk.reserve("top")
    middle, top = desk.wait(wants(units=2)), desk.wait(wants("top"))
    desk.give_back(held)
    assert (desk.granted(middle).pool, desk.granted(top).pool) == ("spares", "conns")


def test_the_lenders_own_go_first(desk: Desk) -> None:
    desk.reserve(units=2)
    held = desk.reserve("spare", units=3)
    borrower, own = desk.wait(wants(priority=CRITICAL)), desk.wait(wants("spare", units=3, priority=LOW))
    desk.give_back(held)
    assert (desk.granted(borrower), desk.granted(own).pool) == (None, "spares")


def test_what_the_lender_keeps_for_a_class_is_kept_from_borrowers(desk: Desk) -> None:
    desk = Desk(overflow_rules(headroom={CRITICAL: 0.6}))
    desk.reserve(units=2)
    assert desk.reserve(priority=LOW).pool == "spares"
    assert desk.refused(wants(wait_ns=0, priority=LOW)).reason == Reason.UNITS_TAKEN
    assert desk.reserve(priority=CRITICAL).pool == "spares"


def test_the_estimate_is_of_both_pools(desk: Desk) -> None:
    desk.advance(0)
    held = desk.reserve()
    desk.advance(10 * SECOND)
    desk.give_back(held)
    desk.reserve(units=2)
    desk.reserve("spare", units=3)
    place = desk.machine.place(desk.wait(wants(units=2)), desk.now)
    assert place is not None
    # Two of five units, which come back once in ten seconds.
    assert place.wait_ns == 4 * SECOND


def bundle(*claims: str) -> AcquireBundle:
    return AcquireBundle(
        worker="w3",
        reservations=tuple(ReserveResource(type=claim, worker="w3") for claim in claims),
        permits=(),
        locks=(),
        not_engaged=(),
        wait_ns=MINUTE,
    )


def test_a_bundle_does_not_take_one_units_twice(desk: Desk) -> None:
    desk.reserve(units=2)
    desk.reserve("other")
    held = desk.reserve("spare", units=2)
    waiter = desk.wait(bundle("db", "spare"))  # type: ignore[arg-type]
    both = desk.wait(bundle("db", "other"))  # type: ignore[arg-type]
    assert desk.machine.place(waiter, desk.now).blocked_by.subject == "conns"  # type: ignore[union-attr]
    desk.give_back(held)
    assert sorted(member.pool for member in desk.granted(waiter).held) == ["spares", "spares"]
    assert desk.granted(both) is None
    assert used(desk) == [2, 1, 2]


def test_a_bundle_borrows_where_there_is_enough(desk: Desk) -> None:
    desk.reserve(units=2)
    granted = desk.do(bundle("db", "spare", "post"))
    assert isinstance(granted, Granted)
    assert used(desk) == [2, 0, 2]
