from typing import Any

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import CancelSchedule, RecordUsage, ScheduleRequest, TakePermit
from coordd.core.limits import DUE_PER_TICK_MAX, HOUR, MINUTE, SECOND
from coordd.core.outcomes import Expired, Reason
from coordd.core.records import Table
from coordd.core.rules import LimitRule

BUCKET = SECOND // 5


def wanted(endpoint: str = "search", worker: str = "w2", **more: Any) -> TakePermit:
    return TakePermit(endpoint=endpoint, worker=worker, **more)


def booked(endpoint: str = "search", worker: str = "w2", **more: Any) -> ScheduleRequest:
    return ScheduleRequest(endpoint=endpoint, worker=worker, **more)


# -- permits -------------------------------------------------------------------------------------------------


def test_permit_is_to_be_used_within_its_time(desk: Desk) -> None:
    permit = desk.permit(count=2)
    assert (permit.count, permit.use_by) == (2, desk.now + 10 * SECOND)


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


# -- recovery ------------------------------------------------------------------------------------------------


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
