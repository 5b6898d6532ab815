from typing import Any

import pytest
from core_desk import T0, Desk, rules_of

from coordd.core.commands import ForceRelease, RequestLock, ReserveResource, TakePermit
from coordd.core.errors import InvalidArgument, NotFound
from coordd.core.limits import DUE_PER_TICK_MAX, HOUR, MINUTE, SECOND
from coordd.core.machine import Machine
from coordd.core.outcomes import Expired, Queued, WaitGranted, grant_id
from coordd.core.records import Table
from coordd.core.waiters import ReturnGrant


def test_new_machine_has_nothing_due_and_nothing_to_tell() -> None:
    machine = Machine(rules_of())
    machine.recover({}, 0, T0)
    assert machine.next_deadline() is None
    assert machine.take_notices() == []
    assert not machine.has_changes
    assert not any(machine.snapshot().values())


def test_refusals_and_errors_change_nothing_and_queueing_does(desk: Desk) -> None:
    desk.lock()
    desk.permit(count=3)
    before = desk.machine.digest()
    desk.refused(RequestLock(item="a", kind="like", worker="w2"))
    desk.refused(TakePermit(endpoint="search", worker="w2"))
    desk.error(TakePermit(endpoint="search", worker="w2", count=9, wait_ns=HOUR))
    assert desk.machine.digest() == before
    desk.wait(RequestLock(item="a", kind="like", worker="w2", wait_ns=HOUR))
    assert desk.machine.digest() != before


def test_tick_does_a_bounded_number_of_things_and_says_that_there_is_more(desk: Desk) -> None:
    for number in range(DUE_PER_TICK_MAX + 1):
        desk.lock(str(number))
    now = desk.now + MINUTE
    desk.machine.tick(now)
    assert len(desk.machine.take_notices()) == DUE_PER_TICK_MAX
    assert desk.machine.next_deadline() == now
    desk.machine.tick(now)
    assert len(desk.machine.take_notices()) == 1


def test_what_comes_free_in_a_tick_is_given_on_in_the_same_tick(desk: Desk) -> None:
    lock = desk.lock()
    waiter = desk.wait(RequestLock(item="a", kind="like", worker="w2", wait_ns=HOUR))
    expired, granted = desk.advance(MINUTE)
    assert expired == Expired(grant=lock)
    assert isinstance(granted, WaitGranted)
    assert granted.waiter.id == waiter


def test_notices_and_changes_are_told_once(desk: Desk) -> None:
    desk.lock()
    assert desk.machine.has_changes
    desk.machine.take_changes()
    assert desk.machine.take_changes() == ({}, {})
    desk.machine.tick(desk.now + MINUTE)
    assert len(desk.machine.take_notices()) == 1
    assert desk.machine.take_notices() == []


def test_tokens_and_ids_are_one_rising_sequence_across_restarts(desk: Desk) -> None:
    ids: list[int] = []
    for _ in range(3):
        ids += [desk.lock(str(len(ids))).token, desk.permit().id, desk.reserve().id, desk.book().id]
        desk.restart()
        desk.advance(3 * MINUTE)
    assert ids == sorted(set(ids))
    assert desk.machine.last_id >= ids[-1]


def test_ids_are_not_used_again_even_if_the_store_lost_its_last_batches(desk: Desk) -> None:
    lost = desk.lock().token
    machine = Machine(rules_of())
    machine.recover({}, 0, desk.now + SECOND)
    fresh: Any = machine.apply(RequestLock(item="a", kind="like", worker="w2"), desk.now + SECOND)
    assert fresh.grant.token > lost


# -- grants nobody heard of ----------------------------------------------------------------------------------


def test_returned_grant_is_as_if_never_given_except_that_its_token_is_used_up(desk: Desk) -> None:
    lock, held, permit = desk.lock(request_id="r1"), desk.reserve(units=3), desk.permit(count=3)
    spent = desk.reserve("post", units=3)
    for name in (lock.token, held.id, permit.id, spent.id):
        assert grant_id(desk.do(ReturnGrant(id=name, waiter=None)).grant) == name
        assert desk.do(ReturnGrant(id=name, waiter=None)).grant is None
    desk.commit()
    assert not any(desk.rows[table] for table in Table)
    assert desk.lock(request_id="r1").token > lock.token
    desk.reserve(units=3)
    desk.reserve("post", units=3)
    desk.permit(count=3)


def test_token_of_a_returned_lock_is_not_given_again(desk: Desk) -> None:
    token = desk.lock().token
    desk.do(ReturnGrant(id=token, waiter=None))
    assert desk.lock().token > token


def test_returned_grant_serves_the_next_and_its_waiter_has_its_place_back_away(desk: Desk) -> None:
    held = desk.lock(ttl_ns=HOUR)
    wanted = RequestLock(item="a", kind="like", worker="w2", request_id="r1", wait_ns=HOUR, ttl_ns=HOUR)
    first = desk.wait(wanted)
    second = desk.wait(RequestLock(item="a", kind="like", worker="w3", wait_ns=HOUR))
    desk.release(held)
    granted = desk.notices[-1]
    assert isinstance(granted, WaitGranted)
    desk.do(ReturnGrant(id=grant_id(granted.grant), waiter=granted.waiter))
    assert desk.granted(second)
    assert desk.machine.counts().waiters_away == 1
    third = desk.wait(RequestLock(item="a", kind="like", worker="w4", wait_ns=HOUR))
    assert desk.do(wanted) == Queued(id=first, is_resumed=True)
    place = desk.machine.place(third, desk.now)
    assert place is not None
    assert place.position == 2


def test_waiter_without_a_request_id_has_no_place_to_come_back_to(desk: Desk) -> None:
    held = desk.lock()
    desk.wait(RequestLock(item="a", kind="like", worker="w2", wait_ns=HOUR))
    desk.release(held)
    granted = desk.notices[-1]
    assert isinstance(granted, WaitGranted)
    desk.do(ReturnGrant(id=grant_id(granted.grant), waiter=granted.waiter))
    assert desk.machine.counts().waiters == 0


def test_booking_is_no_grant_to_return(desk: Desk) -> None:
    booking = desk.book()
    assert desk.do(ReturnGrant(id=booking.id, waiter=None)).grant is None
    assert desk.machine.counts().bookings == 1


# -- operators and views -------------------------------------------------------------------------------------


def test_forced_release_serves_the_next_and_is_unknown_to_permits(desk: Desk) -> None:
    lock, permit = desk.lock(), desk.permit()
    waiter = desk.wait(RequestLock(item="a", kind="like", worker="w2", wait_ns=HOUR))
    assert desk.do(ForceRelease(id=lock.token, reason="stuck")).grant is lock
    assert desk.granted(waiter)
    assert desk.error(ForceRelease(id=lock.token, reason="again")) == "UNKNOWN_ID"
    assert desk.error(ForceRelease(id=permit.id, reason="no")) == "UNKNOWN_ID"


def test_length_of_a_queue(desk: Desk) -> None:
    desk.do(TakePermit(endpoint="one", worker="a"))
    desk.do(TakePermit(endpoint="one", worker="b", wait_ns=MINUTE))
    assert desk.machine.queue_length(("limit", "one")) == 1
    assert desk.machine.queue_length(("limit", "search")) == 0


def test_counts(desk: Desk) -> None:
    desk.lock()
    desk.reserve()
    desk.permit()
    desk.book()
    waiter = desk.wait(RequestLock(item="a", kind="like", worker="w2", request_id="r", wait_ns=HOUR))
    desk.leave(waiter)
    counts = desk.machine.counts()
    assert (counts.locks, counts.reservations, counts.permits, counts.bookings) == (1, 1, 1, 1)
    assert (counts.waiters, counts.waiters_away, counts.last_id) == (1, 1, waiter)


def test_views_of_unknown_things_are_errors(desk: Desk) -> None:
    with pytest.raises(InvalidArgument):
        desk.machine.limit("unheard of", desk.now)
    with pytest.raises(InvalidArgument):
        desk.machine.allocation("unheard of", "w1", desk.now)
    with pytest.raises(InvalidArgument):
        desk.machine.availability(ReserveResource(type="unheard of", worker="w1"), desk.now)
    with pytest.raises(NotFound):
        desk.machine.pool("unheard of", desk.now)


def test_views_change_nothing(desk: Desk) -> None:
    desk.permit(count=3)
    desk.reserve("post")
    waiter = desk.wait(TakePermit(endpoint="search", worker="w2", wait_ns=HOUR))
    before = desk.machine.digest()
    desk.machine.place(waiter, desk.now)
    desk.machine.item("a", "like", desk.now)
    desk.machine.limits(desk.now)
    desk.machine.pools(desk.now)
    desk.machine.counts()
    desk.machine.allocation("search", "w1", desk.now)
    desk.machine.availability(ReserveResource(type="db", worker="w1"), desk.now)
    assert desk.machine.digest() == before
