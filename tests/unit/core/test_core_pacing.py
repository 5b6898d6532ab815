import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import TakePermit, UpdateLimit
from coordd.core.limits import HOUR, MILLISECOND, SECOND
from coordd.core.outcomes import Reason
from coordd.core.rules import CRITICAL, HIGH, LimitRule

SLACK = 20 * MILLISECOND


@pytest.fixture
def desk() -> Desk:
    even = LimitRule(
        windows={100 * SECOND: 10, 500 * SECOND: 40},
        use_within_ns=SECOND,
        claim_window_ns=5 * SECOND,
        is_even=True,
    )
    return Desk(rules_of(limits={"e": even}))


def wanted(**more: object) -> TakePermit:
    return TakePermit(endpoint="e", worker="w2", **more)  # type: ignore[arg-type]


def test_next_call_may_begin_when_the_last_ones_have_had_their_intervals(desk: Desk) -> None:
    desk.permit("e", count=2)
    refused = desk.refused(wanted())
    # 500 s / 40 is the longer interval.
    assert (refused.reason, refused.retry_at) == (Reason.PACED, desk.now + 25 * SECOND - SLACK)
    desk.advance(25 * SECOND - SLACK - 1)
    desk.refused(wanted())
    desk.advance(1)
    desk.permit("e")


def test_lateness_is_caught_up_and_idle_time_is_not(desk: Desk) -> None:
    desk.permit("e")
    desk.advance(12_500 * MILLISECOND - 10 * MILLISECOND)
    desk.permit("e")
    assert desk.refused(wanted()).retry_at == desk.now + 12_490 * MILLISECOND
    desk.advance(HOUR)
    desk.permit("e")
    assert desk.refused(wanted()).retry_at == desk.now + 12_500 * MILLISECOND - SLACK


def test_critical_call_is_not_held_up_but_takes_its_interval(desk: Desk) -> None:
    desk.permit("e")
    desk.permit("e", priority=CRITICAL)
    assert desk.refused(wanted()).retry_at == desk.now + 25 * SECOND - SLACK


def test_waiters_are_served_one_interval_after_the_other(desk: Desk) -> None:
    desk.permit("e")
    first, second = desk.wait(wanted(wait_ns=HOUR)), desk.wait(wanted(wait_ns=HOUR))
    place = desk.machine.place(second, desk.now)
    assert place is not None
    assert place.blocked_by.reason == Reason.PACED
    assert place.wait_ns == 25 * SECOND - SLACK
    desk.advance(12_500 * MILLISECOND - SLACK)
    assert desk.granted(first) is not None
    assert desk.granted(second) is None
    desk.advance(12_500 * MILLISECOND)
    assert desk.granted(second) is not None
    assert desk.machine.limit("e", desk.now).scheduling_error_ns == 0


def test_bookings_are_spaced_and_come_after_those_who_wait(desk: Desk) -> None:
    desk.permit("e")
    desk.wait(wanted(wait_ns=HOUR))
    booked = [desk.book("e", priority=HIGH).execute_at - desk.now for _ in range(3)]
    assert booked[0] >= 12_500 * MILLISECOND - SLACK
    assert booked[1] - booked[0] >= 12_500 * MILLISECOND
    assert booked[2] - booked[1] >= 12_500 * MILLISECOND
    assert desk.book("e", priority=CRITICAL).execute_at == desk.now


def test_booking_fills_a_gap_that_is_wide_enough(desk: Desk) -> None:
    desk.book("e", not_before_ns=50 * SECOND)
    desk.book("e", not_before_ns=80 * SECOND)
    assert desk.book("e", not_before_ns=51 * SECOND).execute_at == desk.now + 62_500 * MILLISECOND
    assert desk.book("e", not_before_ns=51 * SECOND).execute_at == desk.now + 92_500 * MILLISECOND


def test_restart_begins_as_late_as_the_calls_can_have_been(desk: Desk) -> None:
    desk.permit("e", count=3)
    told = desk.refused(wanted()).retry_at
    desk.restart(down_ns=SECOND)
    refused = desk.refused(wanted())
    assert refused.reason == Reason.PACED
    assert told <= refused.retry_at <= told + 2 * SECOND + SLACK


def test_interval_follows_the_limit(desk: Desk) -> None:
    desk.do(UpdateLimit(endpoint="e", windows={500 * SECOND: 20}))
    desk.permit("e")
    assert desk.refused(wanted()).retry_at == desk.now + 25 * SECOND - SLACK
