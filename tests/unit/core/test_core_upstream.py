from typing import Any

import pytest
from core_desk import T0, Desk, rules_of

from coordd.core.commands import TakePermit, UpdateLimit
from coordd.core.limits import DAY, HOUR, MINUTE, SECOND
from coordd.core.outcomes import Alert, LimitLearned, Reason
from coordd.core.records import Permit, Table
from coordd.core.rules import LimitRule
from coordd.core.views import LimitView, WindowView

RULE = LimitRule(
    windows={15 * MINUTE: 100, HOUR: 300}, use_within_ns=10 * SECOND, reset_max_ns=DAY, claim_window_ns=SECOND
)


@pytest.fixture
def desk() -> Desk:
    return Desk(rules_of(limits={"e": RULE, "plain": RULE}))


def x(limit: int | None = None, remaining: int | None = None, reset: int | None = None) -> Any:
    """Return X-RateLimit headers."""
    values = {"Limit": limit, "Remaining": remaining, "Reset": reset}
    return tuple((f"X-RateLimit-{name}", str(value)) for name, value in values.items() if value is not None)


def call(desk: Desk, headers: Any, **more: Any) -> None:
    desk.report(desk.permit("e", **more), status_code=200, headers=headers)


def view(desk: Desk) -> LimitView:
    return desk.machine.limit("e", desk.now)


def windows(desk: Desk) -> tuple[WindowView, ...]:
    return view(desk).windows


def limits(desk: Desk) -> list[int]:
    return [window.limit for window in windows(desk)]


def learned(desk: Desk) -> list[tuple[int, int, bool]]:
    return [(n.window_ns, n.value, n.is_in_force) for n in desk.notices if isinstance(n, LimitLearned)]


# -- limits --------------------------------------------------------------------------------------------------


def test_a_lower_limit_is_in_force_at_once_and_told_once(desk: Desk) -> None:
    call(desk, x(60, 59, 900))
    call(desk, x(60, 58, 900))
    assert limits(desk) == [60, 300]
    assert learned(desk) == [(15 * MINUTE, 60, True)]
    (row,) = view(desk).learned
    assert (row.value, row.configured, row.at) == (60, 100, T0)
    assert not view(desk).is_overridden


def test_told_as_configured_again_it_is_raised_again(desk: Desk) -> None:
    call(desk, x(60))
    call(desk, x(100))
    assert limits(desk) == [100, 300]
    assert learned(desk) == [(15 * MINUTE, 60, True), (15 * MINUTE, 100, True)]
    assert view(desk).learned == ()
    assert desk.machine.snapshot()[Table.LEARNED_LIMITS] == []


def test_a_higher_limit_only_suggests(desk: Desk) -> None:
    for _ in range(2):
        call(desk, x(120, 119, 900))
    assert limits(desk) == [100, 300]
    assert learned(desk) == [(15 * MINUTE, 120, False)]
    assert [row.value for row in view(desk).learned] == [120]


def test_one_that_rises_serves_those_who_wait(desk: Desk) -> None:
    permit = desk.permit("e")
    call(desk, x(2))
    waiter = desk.wait(TakePermit(endpoint="e", worker="w2", wait_ns=HOUR))
    desk.report(permit, headers=x(100))
    assert desk.granted(waiter) is not None


def test_one_that_rises_by_a_late_report_serves_them_too(desk: Desk) -> None:
    permit = desk.permit("e")
    call(desk, x(2))
    desk.advance(10 * SECOND)
    waiter = desk.wait(TakePermit(endpoint="e", worker="w2", wait_ns=HOUR))
    desk.report(permit, headers=x(100))
    assert desk.granted(waiter) is not None


def test_whoever_wants_more_than_is_allowed_now_is_refused(desk: Desk) -> None:
    permit = desk.permit("e", count=60)
    waiter = desk.wait(TakePermit(endpoint="e", worker="w2", count=50, wait_ns=HOUR))
    desk.report(permit, headers=x(40))
    refusal = desk.refusal(waiter)
    assert refusal is not None
    assert refusal.reason == Reason.WINDOW_FULL
    assert desk.error(TakePermit(endpoint="e", worker="w2", count=50)) == "PERMITS_ABOVE_LIMIT"


def test_an_unsaid_or_senseless_limit_teaches_nothing(desk: Desk) -> None:
    call(desk, x(0))
    call(desk, x(None, 50))
    assert (limits(desk), learned(desk)) == ([100, 300], [])


def test_not_sent_teaches_nothing(desk: Desk) -> None:
    desk.report(desk.permit("e"), is_sent=False, headers=x(60))
    assert limits(desk) == [100, 300]


def test_malformed_fields_are_counted(desk: Desk) -> None:
    call(desk, (("X-RateLimit-Limit", "many"), ("Retry-After", "soon")))
    assert view(desk).malformed_headers == 2


# -- which window --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        # Its length is told.
        ((("RateLimit-Policy", '"a";q=50;w=3600'),), [100, 50]),
        ((("RateLimit-Policy", '"a";q=50;w=60'),), [100, 300]),
        # A reset further ahead than a window is long is not that window's.
        (x(50, 40, 1800), [100, 50]),
        (x(50, 40, 7200), [100, 300]),
        # Resets are rounded up to whole seconds.
        (x(50, 40, 901), [50, 300]),
        # One of exactly that limit is meant, though another is nearer above.
        (x(300, 40, 10), [100, 300]),
        # The nearest; a cut is nearer than a rise.
        (x(250, 40, 10), [100, 250]),
        (x(150, 40, 10), [100, 150]),
        (x(120, 40, 10), [100, 300]),
        (x(90, 40, 10), [90, 300]),
        (x(50), [50, 300]),
        # Several policies of one window: the tightest.
        ((("RateLimit-Policy", '"a";q=80;w=900,"b";q=70;w=900,"c";q=75;w=900'),), [70, 300]),
    ],
)
def test_which_window_is_meant(desk: Desk, headers: Any, expected: list[int]) -> None:
    call(desk, headers)
    assert limits(desk) == expected


def test_the_window_may_be_configured() -> None:
    rule = LimitRule(windows=RULE.windows, header_window_ns=HOUR)
    desk = Desk(rules_of(limits={"e": rule}))
    call(desk, x(90, 40, 10))
    assert limits(desk) == [100, 90]


def test_a_limit_that_is_learnt_is_recognised_again(desk: Desk) -> None:
    call(desk, x(240, 200, 1800))
    assert limits(desk) == [100, 240]
    call(desk, x(240, 199, 10))
    assert limits(desk) == [100, 240]


# -- what the file and operators say -------------------------------------------------------------------------


def test_an_operators_word_drops_what_was_learnt_of_that_window(desk: Desk) -> None:
    call(desk, x(60, 50, 900))
    call(desk, x(250, 200, 3000))
    desk.do(UpdateLimit(endpoint="e", windows={15 * MINUTE: 80}))
    assert limits(desk) == [80, 250]
    desk.restart()
    assert limits(desk) == [80, 250]
    call(desk, x(60))
    assert limits(desk) == [60, 250]
    assert (view(desk).learned[0].configured, view(desk).is_overridden) == (80, True)
    desk.restart()
    assert limits(desk) == [60, 250]


def test_an_operators_word_is_checked_against_the_operators_and_not_upstreams(desk: Desk) -> None:
    call(desk, x(20))
    desk.do(UpdateLimit(endpoint="e", windows={HOUR: 250}))
    assert limits(desk) == [20, 250]


def test_a_new_word_of_the_file_drops_it_too(desk: Desk) -> None:
    call(desk, x(60))
    rule = LimitRule(windows={15 * MINUTE: 110, HOUR: 300})
    desk.restart(rules_of(limits={"e": rule}))
    assert limits(desk) == [110, 300]
    desk.commit()
    assert desk.rows[Table.LEARNED_LIMITS] == {}


@pytest.mark.parametrize("windows", [{HOUR: 300}, None])
def test_what_the_file_no_longer_knows_is_dropped(desk: Desk, windows: Any) -> None:
    call(desk, x(60, 5, 300))
    desk.restart(rules_of(limits={"e": LimitRule(windows=windows)} if windows else {}))
    desk.commit()
    assert desk.rows[Table.LEARNED_LIMITS] == desk.rows[Table.FOREIGN_USAGES] == {}


def test_a_restart_keeps_it(desk: Desk) -> None:
    call(desk, x(60, 5, 300))
    desk.restart(down_ns=SECOND)
    assert limits(desk) == [60, 300]
    assert windows(desk)[0].remaining == 5
    desk.restart(down_ns=300 * SECOND)
    assert windows(desk)[0].remaining == 59
    desk.commit()
    assert desk.rows[Table.FOREIGN_USAGES] == {}


# -- what is left --------------------------------------------------------------------------------------------


def remaining(desk: Desk) -> int:
    return windows(desk)[0].remaining


def test_effective_remaining_is_the_less_of_ours_and_upstreams(desk: Desk) -> None:
    call(desk, x(100, 30, 300))
    assert remaining(desk) == 30
    call(desk, x(100, 98, 300))
    assert remaining(desk) == 98


def test_what_upstream_says_only_tightens(desk: Desk) -> None:
    for _ in range(10):
        call(desk, x(100, 99, 300))
    assert remaining(desk) == 90


def test_a_higher_limit_of_upstreams_does_not_make_room_nor_take_it(desk: Desk) -> None:
    call(desk, x(1000, 500, 300))
    assert [window.remaining for window in windows(desk)] == [99, 299]
    call(desk, x(1000, 50, 300))
    assert [window.remaining for window in windows(desk)] == [98, 50]


def test_those_in_flight_may_or_may_not_be_counted(desk: Desk) -> None:
    first, *others = [desk.permit("e") for _ in range(5)]
    # Upstream has seen one call, or this one and others: what is left is at least 95 less others' usage.
    desk.report(first, headers=x(100, 95, 300))
    # Of upstream's 5 all may be ours: the floor is 0; or only the first: the ceiling is 4, believed so far.
    assert remaining(desk) == 95 - 4
    for number, permit in enumerate(others):
        desk.report(permit, headers=x(100, 95, 300))
        assert remaining(desk) == 95 - (3 - number)


def test_a_sudden_use_by_others_is_seen_at_once_by_its_floor(desk: Desk) -> None:
    for _ in range(10):
        call(desk, x(100, 90, 300))
    in_flight = [desk.permit("e") for _ in range(5)]
    desk.report(in_flight[0], headers=x(100, 20, 300))
    assert remaining(desk) <= 20


def test_what_others_use_is_held_until_the_reset_and_no_longer(desk: Desk) -> None:
    call(desk, x(100, 0, 300))
    refused = desk.refused(TakePermit(endpoint="e", worker="w2"))
    assert (refused.reason, refused.retry_at) == (Reason.WINDOW_FULL, T0 + 300 * SECOND)
    assert windows(desk)[0].resets_at > T0 + 300 * SECOND
    waiter = desk.wait(TakePermit(endpoint="e", worker="w2", wait_ns=HOUR))
    desk.advance(300 * SECOND - 1)
    assert desk.granted(waiter) is None
    desk.advance(1)
    assert desk.granted(waiter) is not None
    assert remaining(desk) == 98


def test_without_a_reset_it_is_held_for_the_windows_length(desk: Desk) -> None:
    call(desk, x(100, 0))
    assert windows(desk)[0].resets_at >= T0 + 15 * MINUTE
    desk.advance(15 * MINUTE - 1)
    desk.refused(TakePermit(endpoint="e", worker="w2"))
    desk.advance(1)
    desk.permit("e")


def test_without_a_reset_an_empty_window_is_held_until_upstream_says_to_come_back(desk: Desk) -> None:
    desk.report(desk.permit("e"), status_code=429, headers=(*x(100, 0), ("Retry-After", "30")))
    assert remaining(desk) == 0
    desk.advance(30 * SECOND)
    assert remaining(desk) == 99


def test_a_reset_that_is_now_holds_nothing(desk: Desk) -> None:
    call(desk, x(100, 10, 300))
    call(desk, x(100, 9, 0))
    assert remaining(desk) == 98
    assert desk.machine.snapshot()[Table.FOREIGN_USAGES] == []


def test_a_late_or_second_report_says_nothing_of_what_is_left(desk: Desk) -> None:
    permit = desk.permit("e")
    desk.report(permit)
    desk.report(permit, headers=x(100, 3, 300))
    assert remaining(desk) == 99


def test_of_several_partitions_the_one_with_the_least_left_counts(desk: Desk) -> None:
    policy = ("RateLimit-Policy", '"a";q=100;w=900,"b";q=100;w=900')
    call(desk, (policy, ("RateLimit", '"a";r=50;t=9,"b";r=20;t=300')))
    assert remaining(desk) == 20


def test_what_left_our_window_since_the_grant_may_be_in_upstreams_count() -> None:
    rule = LimitRule(windows={100 * SECOND: 10}, use_within_ns=50 * SECOND)
    desk = Desk(rules_of(limits={"e": rule}))
    for _ in range(5):
        desk.report(desk.permit("e"))
    desk.advance(95 * SECOND)
    permit = desk.permit("e")
    desk.advance(10 * SECOND)
    # The five have left ours; when the call came in, upstream may still have counted six, all of them ours.
    desk.report(permit, headers=x(10, 4, 90))
    assert desk.machine.snapshot()[Table.FOREIGN_USAGES] == []
    assert remaining(desk) == 9
    # It counts nine now: eight are others'.
    call(desk, x(10, 0, 90))
    assert remaining(desk) == 0


# -- absurd resets -------------------------------------------------------------------------------------------


def alerts(desk: Desk) -> list[str]:
    return [notice.detail for notice in desk.notices if isinstance(notice, Alert)]


def test_absurd_resets_are_told_once_in_a_row(desk: Desk) -> None:
    for _ in range(2):
        call(desk, x(100, 50, 9_000_000))
    assert alerts(desk) == ["Upstream's reset is 104d4h ahead; 1d is believed."]
    call(desk, x(100, 50, 300))
    call(desk, x(100, 50))
    call(desk, x(100, 50, 9_000_000))
    assert len(alerts(desk)) == 2


def test_other_endpoints_learn_nothing(desk: Desk) -> None:
    call(desk, x(60, 5, 300))
    other: Permit = desk.permit("plain")
    assert other.endpoint == "plain"
    assert desk.machine.limit("plain", desk.now).windows[0].limit == 100
