from typing import Any

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import (
    CancelSchedule,
    ForceRelease,
    RecordUsage,
    ScheduleRequest,
    TakePermit,
    UpdateLimit,
)
from coordd.core.limits import DUE_PER_TICK_MAX, HOUR, MINUTE, SECOND
from coordd.core.outcomes import Expired, Reason
from coordd.core.records import Table
from coordd.core.rules import HIGH, LOW, LimitRule

BUCKET = SECOND // 5


def wanted(endpoint: str = "search", worker: str = "w2", **more: Any) -> TakePermit:
    return TakePermit(endpoint=endpoint, worker=worker, **more)


def booked(endpoint: str = "search", worker: str = "w2", **more: Any) -> ScheduleRequest:
    return ScheduleRequest(endpoint=endpoint, worker=worker, **more)


# -- permits -------------------------------------------------------------------------------------------------


def test_permit_is_to_be_used_within_its_time(desk: Desk) -> None:
    permit = desk.permit(count=2)
    assert (permit.count, permit.use_by) == (2, desk.now + 10 * SECOND)


def test_full_window_refuses_and_says_which_and_until_when(desk: Desk) -> None:
    desk.permit(count=3)
    refused = desk.refused(wanted())
    assert (refused.reason, refused.subject) == (Reason.WINDOW_FULL, "search")
    assert refused.window_ns == 100 * SECOND
    assert refused.retry_at == desk.now + 110 * SECOND + BUCKET
    assert refused.position == 1
    desk.advance(refused.retry_at - 1 - desk.now)
    desk.refused(wanted())
    desk.advance(1)
    desk.permit()


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("UNKNOWN_ENDPOINT", wanted("unheard of")),
        ("PERMITS_ABOVE_LIMIT", wanted(count=4)),
        ("PERMITS_ABOVE_LIMIT", wanted(count=4, wait_ns=HOUR)),
        ("UNKNOWN_ENDPOINT", booked("unheard of")),
        ("PERMITS_ABOVE_LIMIT", booked(count=4)),
        ("BEYOND_HORIZON", booked(not_before_ns=25 * HOUR)),
        ("UNKNOWN_ENDPOINT", RecordUsage(endpoint="?", worker="w", id=1, is_sent=True, is_success=True)),
        ("UNKNOWN_ID", RecordUsage(endpoint="one", worker="w", id=0, is_sent=True, is_success=True)),
        ("UNKNOWN_ID", CancelSchedule(id=0, worker="w")),
        ("UNKNOWN_ID", wanted(booking_id=1 << 60)),
    ],
)
def test_what_can_never_be_is_an_error(desk: Desk, reason: str, command: Any) -> None:
    assert desk.error(command) == reason


# -- reports -------------------------------------------------------------------------------------------------


def test_report_moves_the_charge_to_the_moment_of_the_report(desk: Desk) -> None:
    permit = desk.permit("one")
    desk.advance(SECOND)
    assert desk.report(permit).refunded == 0
    assert desk.refused(wanted("one")).retry_at == desk.now + 100 * SECOND + BUCKET


def test_what_was_not_sent_goes_back_and_wakes_the_next(desk: Desk) -> None:
    permit = desk.permit(count=3)
    waiter = desk.wait(wanted(count=3, wait_ns=HOUR))
    assert desk.report(permit, is_sent=False).refunded == 3
    assert desk.granted(waiter)


def test_refund_is_of_the_one_permit_only(desk: Desk) -> None:
    first, second = desk.permit(count=1), desk.permit(count=2)
    desk.report(first, is_sent=False)
    assert [window.used for window in desk.machine.limit("search", desk.now).windows] == [2, 2]
    desk.report(second, is_sent=False)
    assert [window.used for window in desk.machine.limit("search", desk.now).windows] == [0, 0]


def test_permit_is_settled_once(desk: Desk) -> None:
    permit = desk.permit("one")
    desk.report(permit)
    again = desk.report(permit, is_sent=False)
    assert (again.permit, again.refunded) == (None, 0)
    desk.refused(wanted("one"))


def test_unreported_permit_stays_charged_at_its_latest_possible_use(desk: Desk) -> None:
    permit = desk.permit("one")
    until = permit.use_by + 100 * SECOND + BUCKET
    assert desk.advance(10 * SECOND) == [Expired(grant=permit)]
    assert desk.report(permit, is_sent=False).permit is None
    assert desk.refused(wanted("one")).retry_at == until


def test_permit_past_its_time_is_not_settled_even_before_its_tick(desk: Desk) -> None:
    permit = desk.permit("one")
    usage = RecordUsage(endpoint="one", worker="w1", id=permit.id, is_sent=False, is_success=False)
    outcome: Any = desk.machine.apply(usage, permit.use_by)
    assert (outcome.permit, outcome.refunded) == (None, 0)


@pytest.mark.parametrize("changes", [{"worker": "w2"}, {"endpoint": "one"}])
def test_only_its_worker_settles_a_permit_of_that_endpoint(desk: Desk, changes: dict[str, str]) -> None:
    permit = desk.permit()
    fields: Any = {"endpoint": "search", "worker": "w1"} | changes
    usage = RecordUsage(id=permit.id, is_sent=True, is_success=True, **fields)
    assert desk.error(usage) == "NOT_HOLDER"


def test_429s_are_counted(desk: Desk) -> None:
    first, second = desk.permit(), desk.permit()
    desk.report(first, status_code=429)
    desk.report(second, status_code=200)
    assert desk.machine.limit("search", desk.now).violations == 1


def test_many_permits_pass_their_time_a_bounded_number_at_once() -> None:
    limit = LimitRule(windows={HOUR: 10_000}, use_within_ns=10 * SECOND)
    desk = Desk(rules_of(limits={"big": limit}))
    permits = [desk.permit("big") for _ in range(DUE_PER_TICK_MAX + 2)]
    desk.report(permits[0])
    limit_ = desk.machine._rate_limits.limit("big")
    assert len(desk.machine._rate_limits.expire(limit_, permits[0].use_by)) == DUE_PER_TICK_MAX
    assert desk.machine.counts().permits == 1
    assert desk.machine.next_deadline() == permits[0].use_by
    assert desk.advance(10 * SECOND) == [Expired(grant=permits[-1])]


def test_permits_that_were_given_later_pass_their_time_later(desk: Desk) -> None:
    first = desk.permit()
    desk.advance(SECOND)
    second = desk.permit()
    assert desk.advance(9 * SECOND) == [Expired(grant=first)]
    assert desk.advance(SECOND) == [Expired(grant=second)]


# -- the queue -----------------------------------------------------------------------------------------------


def test_first_in_the_queue_is_granted_when_the_window_frees(desk: Desk) -> None:
    desk.permit("one")
    waiter = desk.wait(wanted("one", wait_ns=HOUR))
    place = desk.machine.place(waiter, desk.now)
    assert place is not None
    assert place.wait_ns == 110 * SECOND + BUCKET
    desk.advance(place.wait_ns - 1)
    assert desk.granted(waiter) is None
    desk.advance(1)
    assert desk.granted(waiter).granted_at == desk.now


def test_later_ones_are_told_when_those_ahead_will_have_been_served(desk: Desk) -> None:
    desk.permit("one")
    first = desk.wait(wanted("one", wait_ns=HOUR))
    refused = desk.refused(wanted("one", worker="w3"))
    assert (refused.reason, refused.position) == (Reason.WINDOW_FULL, 2)
    assert refused.retry_at >= desk.now + 210 * SECOND
    second = desk.wait(wanted("one", worker="w3", wait_ns=HOUR))
    desk.advance(refused.retry_at + 20 * SECOND - desk.now)
    assert desk.granted(first).id < desk.granted(second).id


def test_where_there_is_room_but_others_go_first_the_queue_is_the_reason(desk: Desk) -> None:
    desk.permit(count=1)
    desk.wait(wanted(count=3, wait_ns=HOUR))
    refused = desk.refused(wanted(count=1, worker="w3"))
    assert (refused.reason, refused.window_ns, refused.position) == (Reason.QUEUED_AHEAD, 0, 2)


# -- bookings ------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr("coordd.core.rate_limits.BOOKINGS_PER_LIMIT_MAX", 2)
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


# -- views and recovery --------------------------------------------------------------------------------------


def test_view_of_a_limit(desk: Desk) -> None:
    desk.permit(count=2)
    desk.permit(worker="w2")
    desk.wait(wanted(wait_ns=HOUR))
    desk.book()
    view = desk.machine.limit("search", desk.now)
    # What is booked counts where a call made now would meet it.
    assert [window.used for window in view.windows] == [3, 4]
    assert [window.remaining for window in view.windows] == [0, 6]
    assert (view.remaining, view.utilisation) == (0, 1.0)
    assert (view.queued, view.bookings, view.active_workers) == (1, 1, 2)
    assert (view.use_within_ns, view.claim_window_ns) == (10 * SECOND, 20 * SECOND)
    assert [limit.name for limit in desk.machine.limits(desk.now)] == ["one", "search"]


def test_allocation_by_priority_is_the_whole_limit(desk: Desk) -> None:
    desk.permit(worker="w1")
    share = desk.machine.allocation("search", "w2", desk.now).windows[0]
    assert (share.allocated, share.used, share.remaining) == (3, 0, 2)


def test_allocation_of_a_fair_limit_is_what_a_worker_gets_if_it_asks_for_all_it_can() -> None:
    fair = LimitRule(windows={100 * SECOND: 10}, use_within_ns=10 * SECOND, is_fair=True)
    desk = Desk(rules_of(limits={"fair": fair}))
    desk.permit("fair", "w1", count=2)
    view = desk.machine.allocation("fair", "w2", desk.now)
    assert view.active_workers == 2
    assert [(w.allocated, w.used, w.remaining) for w in view.windows] == [(8, 0, 8)]
    desk.permit("fair", "w1", count=6)
    desk.permit("fair", "w2", count=1)
    own, other = (desk.machine.allocation("fair", worker, desk.now).windows[0] for worker in ("w1", "w2"))
    assert (own.own, own.allocated, own.used, own.remaining, own.lent, own.borrowed) == (5, 9, 8, 1, 0, 3)
    assert (other.own, other.allocated, other.used, other.lent, other.borrowed) == (5, 5, 1, 4, 0)
    desk.advance(8 * MINUTE)
    assert desk.machine.allocation("fair", "w2", desk.now).active_workers == 1


def test_recovered_permits_and_bookings_count_as_before(desk: Desk) -> None:
    permit = desk.permit(count=2, request_id="r1")
    booking = desk.book(request_id="r2")
    desk.restart(down_ns=SECOND)
    assert desk.permit(count=2, request_id="r1").id == permit.id
    assert desk.book(request_id="r2").id == booking.id
    assert desk.refused(wanted(count=1)).reason == Reason.WINDOW_FULL
    desk.permit(booking_id=booking.id)
    assert desk.report(permit, is_sent=False).refunded == 2
    desk.permit(count=2)


def test_what_is_left_of_an_endpoint_that_is_configured_no_longer_is_dropped(desk: Desk) -> None:
    desk.permit("one")
    desk.book("search")
    desk.restart(rules_of(limits={}))
    desk.commit()
    assert not any(desk.rows[table] for table in (Table.PERMITS, Table.BOOKINGS))


def test_charges_are_known_again_when_an_endpoint_that_was_gone_comes_back(desk: Desk) -> None:
    desk.permit("one")
    desk.restart(rules_of(limits={}))
    desk.restart(rules_of())
    assert desk.refused(wanted("one", "w2")).reason is Reason.WINDOW_FULL


def test_429_that_is_reported_late_is_counted_all_the_same(desk: Desk) -> None:
    permit = desk.permit()
    desk.advance(MINUTE)
    assert desk.report(permit, status_code=429).permit is None
    assert desk.machine.limit("search", desk.now).violations == 1


def test_settled_permits_are_not_kept_until_the_oldest_open_one_is_over(desk: Desk) -> None:
    desk.permit()
    for _ in range(2):
        desk.report(desk.permit(), is_sent=False)
    [limit] = [limit for limit in desk.machine._rate_limits if limit.name == "search"]
    assert len(limit.open) == 1
