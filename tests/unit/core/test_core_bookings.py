from typing import Any

import pytest
from core_desk import Desk

from coordd.core.commands import CancelSchedule, ForceRelease, ScheduleRequest, TakePermit, UpdateLimit
from coordd.core.limits import HOUR, SECOND
from coordd.core.outcomes import Expired, Reason
from coordd.core.rules import HIGH, LOW

BUCKET = SECOND // 5


def wanted(endpoint: str = "search", worker: str = "w2", **more: Any) -> TakePermit:
    return TakePermit(endpoint=endpoint, worker=worker, **more)


def booked(endpoint: str = "search", worker: str = "w2", **more: Any) -> ScheduleRequest:
    return ScheduleRequest(endpoint=endpoint, worker=worker, **more)


def test_booking_holds_the_room_from_its_time_until_its_latest_use(desk: Desk) -> None:
    booking = desk.book("one", not_before_ns=50 * SECOND)
    assert booking.execute_at == desk.now + 50 * SECOND
    assert booking.claim_until == booking.execute_at + 20 * SECOND
    assert booking.use_by == booking.claim_until + 10 * SECOND
    assert desk.refused(wanted("one")).retry_at == booking.use_by + 100 * SECOND + BUCKET


def test_second_booking_is_after_the_first(desk: Desk) -> None:
    first, second = desk.book("one"), desk.book("one")
    assert first.execute_at == desk.now
    assert second.execute_at == first.use_by + 100 * SECOND + BUCKET


def test_claim_before_its_time_is_refused(desk: Desk) -> None:
    booking = desk.book("one", not_before_ns=50 * SECOND)
    refused = desk.refused(wanted("one", "w1", booking_id=booking.id))
    assert (refused.reason, refused.retry_at) == (Reason.BOOKING_EARLY, booking.execute_at)
    assert (refused.holder, refused.position) == ("", 0)
    desk.advance(50 * SECOND - 1)
    desk.refused(wanted("one", "w1", booking_id=booking.id))
    desk.advance(1)
    desk.permit("one", booking_id=booking.id)


def test_claim_is_granted_the_booking_s_count_whatever_others_want(desk: Desk) -> None:
    booking = desk.book(count=3, not_before_ns=50 * SECOND)
    waiter = desk.wait(wanted(priority=HIGH, wait_ns=HOUR))
    desk.advance(69 * SECOND)
    permit = desk.permit(booking_id=booking.id)
    assert (permit.count, permit.worker, permit.use_by) == (3, "w1", desk.now + 10 * SECOND)
    assert not desk.granted(waiter)


def test_claim_with_the_same_request_id_gives_the_same_permit(desk: Desk) -> None:
    booking = desk.book(count=3)
    permit = desk.permit(booking_id=booking.id, request_id="r1")
    assert desk.permit(booking_id=booking.id, request_id="r1") is permit
    assert desk.error(wanted("search", "w1", booking_id=booking.id)) == "BOOKING_LAPSED"
    assert desk.error(wanted("one", "w1", booking_id=booking.id, request_id="r1")) == "REQUEST_ID_REUSED"


def test_claim_can_not_have_the_booking_s_own_request_id(desk: Desk) -> None:
    booking = desk.book(request_id="r1")
    assert desk.error(wanted("search", "w1", booking_id=booking.id, request_id="r1")) == "REQUEST_ID_REUSED"


def test_claimed_before_its_last_moment_a_booking_frees_the_windows_sooner(desk: Desk) -> None:
    booking = desk.book("one")
    waiter = desk.wait(wanted("one", wait_ns=HOUR))
    desk.permit("one", booking_id=booking.id)
    desk.advance(110 * SECOND + BUCKET)
    assert desk.granted(waiter)


def test_claimed_booking_ends_its_request(desk: Desk) -> None:
    booking = desk.book("one", request_id="r1")
    desk.permit("one", booking_id=booking.id)
    assert desk.error(booked("one", "w1", request_id="r1")) == "REQUEST_ENDED"


def test_unclaimed_booking_lapses_and_gives_its_room_back(desk: Desk) -> None:
    booking = desk.book("one", request_id="r1")
    waiter = desk.wait(wanted("one", wait_ns=HOUR))
    assert desk.advance(20 * SECOND - 1) == []
    notices = desk.advance(1)
    assert notices[0] == Expired(grant=booking)
    assert desk.granted(waiter)
    assert desk.error(wanted("one", "w1", booking_id=booking.id)) == "BOOKING_LAPSED"
    assert desk.error(booked("one", "w1", request_id="r1")) == "REQUEST_ENDED"


def test_booking_whose_claim_window_is_over_is_lapsed_even_before_its_tick(desk: Desk) -> None:
    booking = desk.book("one")
    with pytest.raises(Exception, match="open no longer"):
        desk.machine.apply(wanted("one", "w1", booking_id=booking.id), booking.claim_until)


def test_only_who_booked_claims_or_cancels(desk: Desk) -> None:
    booking = desk.book("one")
    assert desk.error(wanted("one", "w2", booking_id=booking.id)) == "NOT_HOLDER"
    assert desk.error(CancelSchedule(id=booking.id, worker="w2")) == "NOT_HOLDER"
    assert desk.error(wanted("search", "w1", booking_id=booking.id)) == "NOT_HOLDER"


def test_cancel_gives_the_room_back_and_is_idempotent(desk: Desk) -> None:
    booking = desk.book("one")
    waiter = desk.wait(wanted("one", wait_ns=HOUR))
    assert desk.do(CancelSchedule(id=booking.id, worker="w1")).booking is booking
    assert desk.granted(waiter)
    assert desk.do(CancelSchedule(id=booking.id, worker="w1")).booking is None


def test_forced_booking_is_over(desk: Desk) -> None:
    booking = desk.book("one")
    desk.do(ForceRelease(id=booking.id, reason="why not"))
    desk.permit("one")


def test_booking_with_the_same_request_id_is_the_same(desk: Desk) -> None:
    booking = desk.book(count=2, request_id="r1")
    again = desk.do(booked("search", "w1", count=2, request_id="r1"))
    assert again.is_repeat
    assert again.booking is booking
    assert desk.error(booked("search", "w1", count=1, request_id="r1")) == "REQUEST_ID_REUSED"
    assert desk.error(wanted("search", "w1", count=2, request_id="r1")) == "REQUEST_ID_REUSED"
    desk.lock(request_id="r2")
    assert desk.error(booked("search", "w1", request_id="r2")) == "REQUEST_ID_REUSED"


def test_booking_is_no_way_round_the_queue(desk: Desk) -> None:
    desk.permit(count=3)
    waiter = desk.wait(wanted(count=3, wait_ns=HOUR))
    place = desk.machine.place(waiter, desk.now)
    assert place is not None
    assert place.wait_ns is not None
    behind = desk.book(count=1)
    assert behind.execute_at > desk.now + place.wait_ns
    desk.advance(place.wait_ns)
    assert desk.granted(waiter)


def test_booking_of_a_higher_class_goes_before_the_queue(desk: Desk) -> None:
    desk.permit("one")
    desk.wait(wanted("one", priority=LOW, wait_ns=HOUR))
    assert desk.book("one", priority=HIGH).execute_at == desk.now + 110 * SECOND + BUCKET


def test_booking_behind_a_long_queue_is_given_room_that_no_other_booking_has(desk: Desk) -> None:
    desk.permit(count=3)
    desk.wait(wanted(count=2, wait_ns=HOUR))
    bookings = [desk.book(count=3) for _ in range(4)]
    for booking in bookings:
        desk.advance(booking.execute_at - desk.now)
        desk.permit(booking_id=booking.id)


def test_bookings_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordd.core.bookings.BOOKINGS_PER_LIMIT_MAX", 2)
    desk.book()
    desk.book()
    assert desk.error(booked()) == "TOO_MANY_BOOKINGS"


def test_claim_after_the_limit_was_lowered_says_when_there_will_be_room(desk: Desk) -> None:
    desk.permit(count=1)
    booking = desk.book(count=2)
    desk.do(UpdateLimit(endpoint="search", windows={100 * SECOND: 2}))
    refused = desk.refused(wanted("search", "w1", booking_id=booking.id))
    assert (refused.reason, refused.window_ns) == (Reason.WINDOW_FULL, 100 * SECOND)
    assert refused.retry_at == desk.now + 110 * SECOND + BUCKET
