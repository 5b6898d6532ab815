import pytest
from core_desk import T0, Desk, rules_of

from coordd.core.commands import AcquireBundle, ScheduleRequest, TakePermit, UpdateLimit
from coordd.core.forecasts import BIN_NS, Profile
from coordd.core.limits import DAY, HOUR, MINUTE, SECOND
from coordd.core.outcomes import Reason
from coordd.core.records import Forecast, Table
from coordd.core.rules import CRITICAL, HIGH, LOW, MEDIUM, LimitRule

LIMIT = LimitRule(
    windows={100 * SECOND: 100}, use_within_ns=SECOND, claim_window_ns=20 * SECOND, forecast_max=0.5
)


@pytest.fixture
def desk() -> Desk:
    return Desk(rules_of(limits={"e": LIMIT}))


def wanted(priority: int = LOW, **more: object) -> TakePermit:
    return TakePermit(endpoint="e", worker="w2", priority=priority, **more)  # type: ignore[arg-type]


def learn(desk: Desk, priority: int = CRITICAL, *, per_bin: int = 2, bins: int = 400) -> None:
    """Let a class ask for so much for so long."""
    for _ in range(bins):
        desk.permit("e", priority=priority, count=per_bin)
        desk.advance(BIN_NS)


def rates(desk: Desk) -> dict[int, float]:
    return {each.priority: each.rate_ppm / 1e6 for each in desk.machine.limit("e", desk.now).forecasts}


def take_all(desk: Desk, priority: int = LOW) -> int:
    """Take one after the other until refused; return how many were had."""
    for count in range(200):
        if desk.machine.apply(wanted(priority), desk.now).__class__.__name__ == "Refused":
            return count
    raise AssertionError("never refused")


# -- what is learnt ------------------------------------------------------------------------------------------


def test_permits_of_a_bundle_are_demand_like_any_other() -> None:
    plain = LimitRule(windows={100 * SECOND: 100}, use_within_ns=SECOND)
    desk = Desk(rules_of(limits={"e": LIMIT, "plain": plain}))
    permits = tuple(
        TakePermit(endpoint=endpoint, worker="w1", priority=CRITICAL, count=2) for endpoint in ("e", "plain")
    )
    for _ in range(60):
        desk.do(AcquireBundle(worker="w1", priority=CRITICAL, permits=permits))
        desk.advance(BIN_NS)
    assert rates(desk) == {CRITICAL: pytest.approx(0.1, rel=0.01)}


def test_rate_is_learnt_in_ten_minutes_by_half(desk: Desk) -> None:
    learn(desk, bins=60)
    assert rates(desk) == {CRITICAL: pytest.approx(0.1, rel=0.01)}
    learn(desk, bins=600)
    assert rates(desk) == {CRITICAL: pytest.approx(0.2, rel=0.01)}


def test_rate_fades_by_half_in_ten_minutes_and_is_nothing_after_a_week(desk: Desk) -> None:
    learn(desk, bins=600)
    desk.advance(10 * MINUTE)
    assert rates(desk) == {CRITICAL: pytest.approx(0.1, rel=0.01)}
    desk.advance(8 * DAY)
    assert rates(desk) == {CRITICAL: 0}
    learn(desk, bins=1)
    assert rates(desk) == {CRITICAL: pytest.approx(0.2 * 0.0115, rel=0.01)}


def test_only_new_demand_counts(desk: Desk) -> None:
    """Permits at once and waits that begin; no refusals, no repeats, no grant after a wait."""
    desk.permit("e", priority=HIGH, count=98, request_id="r")
    desk.permit("e", priority=HIGH, count=98, request_id="r")
    for _ in range(5):
        desk.refused(wanted(HIGH, count=50))
    desk.wait(wanted(HIGH, count=50, wait_ns=HOUR, request_id="s"))
    desk.wait(wanted(HIGH, count=50, wait_ns=HOUR, request_id="s"))
    desk.advance(BIN_NS)
    assert rates(desk) == {HIGH: pytest.approx(14.8 * 0.011486, rel=0.001)}
    desk.advance(10 * MINUTE)
    assert rates(desk)[HIGH] < 14.8 * 0.011486


def test_hours_are_the_same_until_all_have_been_seen() -> None:
    profile = Profile()
    for hour in range(23):
        profile.learn(hour * HOUR, 100 * hour)
        assert profile.factor(5 * HOUR) == 1_000_000
    profile.learn(23 * HOUR, 100 * 23)
    assert profile.factor(23 * HOUR) == pytest.approx(2_000_000, rel=0.001)
    assert profile.factor(0) == 0
    assert profile.span(0, 3 * DAY) == 3 * DAY * 1_000_000
    assert profile.span(22 * HOUR + HOUR // 2, HOUR) == pytest.approx(1_956_522 * HOUR, rel=0.001)
    assert Profile(profile.text()).factor(7 * HOUR) == profile.factor(7 * HOUR)


def test_new_day_counts_a_quarter() -> None:
    profile = Profile()
    for hour in range(24):
        profile.learn(hour * HOUR, 3_600)
    profile.learn(0, 0)
    assert profile.factor(0) == pytest.approx(0.75 * 24 / 23.75 * 1e6, rel=0.001)


def test_what_is_learnt_survives_a_restart(desk: Desk) -> None:
    learn(desk, bins=500)
    before = desk.machine.limit("e", desk.now).forecasts
    desk.restart()
    assert desk.machine.limit("e", desk.now).forecasts == before
    desk.commit()
    assert desk.machine.snapshot()[Table.FORECASTS] == list(desk.rows[Table.FORECASTS].values())


@pytest.mark.parametrize("limits", [{}, {"e": LimitRule(windows={SECOND: 9})}])
def test_what_nobody_asks_for_any_more_is_dropped(desk: Desk, limits: dict[str, LimitRule]) -> None:
    learn(desk, bins=1)
    desk.restart(rules_of(limits=limits))
    desk.commit()
    assert not desk.rows[Table.FORECASTS]


# -- what is left ----------------------------------------------------------------------------------------


def test_low_class_leaves_what_higher_ones_are_expected_to_want(desk: Desk) -> None:
    learn(desk, per_bin=2, bins=600)
    desk.advance(200 * SECOND // BIN_NS * BIN_NS)
    had = take_all(desk)
    # 16 are expected by now, 3 x 4 more are their margin.
    assert 68 <= had <= 76
    refused = desk.refused(wanted())
    assert refused.reason == Reason.HEADROOM
    assert 0 < refused.retry_at - desk.now < 100 * SECOND
    desk.permit("e", priority=CRITICAL, count=100 - had)


def test_what_nobody_comes_for_is_set_free_bit_by_bit(desk: Desk) -> None:
    learn(desk, per_bin=2, bins=600)
    desk.advance(100 * SECOND)
    take_all(desk)
    waiter = desk.wait(wanted(wait_ns=HOUR))
    told = desk.machine.place(waiter, desk.now)
    assert told is not None
    desk.advance(told.blocked_by.retry_at - desk.now)
    assert desk.granted(waiter) is not None
    # Reckoned with those who were expected and did not come, it had been told a longer wait.
    assert told.wait_ns is not None
    assert told.wait_ns > 0
    assert desk.machine.limit("e", desk.now).scheduling_error_ns > 0  # type: ignore[operator]


@pytest.mark.parametrize(("priority", "had"), [(HIGH, 100), (CRITICAL, 100)])
def test_urgent_classes_leave_nothing(desk: Desk, priority: int, had: int) -> None:
    learn(desk, per_bin=2, bins=100)
    desk.advance(103 * SECOND)
    assert take_all(desk, priority) == had


def test_no_more_than_the_part_that_is_configured_is_left(desk: Desk) -> None:
    learn(desk, per_bin=8, bins=600)
    desk.advance(103 * SECOND)
    assert take_all(desk) == 50
    # Several at once are left room, too: else they could never be had.
    desk.advance(103 * SECOND)
    desk.permit("e", priority=LOW, count=90)


def test_higher_class_passes_one_that_must_leave_it_room() -> None:
    """But it takes no more than what is kept for it, from one who goes first."""
    boosts = {LOW: 0, MEDIUM: 0, HIGH: 0, CRITICAL: 365 * DAY}
    desk = Desk(rules_of(limits={"e": LIMIT}, boost_ns=boosts))
    learn(desk, HIGH, per_bin=2, bins=600)
    desk.advance(103 * SECOND)
    had = take_all(desk)
    desk.wait(wanted(wait_ns=HOUR))
    assert desk.refused(wanted(MEDIUM)).reason == Reason.HEADROOM
    desk.permit("e", priority=HIGH)
    assert desk.refused(wanted(HIGH, count=100 - had)).retry_at > desk.now
    desk.permit("e", priority=HIGH, count=99 - had)


def test_first_that_wants_many_is_not_starved_by_those_who_may_pass() -> None:
    """What is kept from it is what leaves it as many as it wants, and no more than that passes it."""
    boosts = {LOW: 0, MEDIUM: 0, HIGH: 0, CRITICAL: 365 * DAY}
    desk = Desk(rules_of(limits={"e": LIMIT}, boost_ns=boosts))
    learn(desk, HIGH, per_bin=4, bins=600)
    waiter = desk.wait(wanted(count=80, wait_ns=HOUR))
    for _ in range(200):
        if desk.granted(waiter) is None:
            desk.do(wanted(HIGH))
        desk.advance(SECOND)
    assert desk.granted(waiter) is not None


def test_booking_leaves_room_for_what_is_expected(desk: Desk) -> None:
    learn(desk, per_bin=4, bins=600)
    desk.advance(103 * SECOND)
    assert desk.book("e", priority=LOW, count=40).execute_at == desk.now
    at = desk.do(ScheduleRequest(endpoint="e", worker="w", priority=LOW, count=40)).booking.execute_at
    assert at > desk.now
    assert desk.book("e", priority=LOW, not_before_ns=2 * HOUR).execute_at == desk.now + 2 * HOUR


def test_status_tells_what_is_expected_and_kept(desk: Desk) -> None:
    learn(desk, LOW, per_bin=1, bins=10)
    learn(desk, HIGH, per_bin=2, bins=600)
    desk.advance(103 * SECOND)
    low, high = desk.machine.limit("e", desk.now).forecasts
    assert (low.priority, low.kept) == (LOW, 0)
    assert (high.priority, 20 <= high.kept <= 35) == (HIGH, True)
    desk.advance(DAY)
    assert [each.kept for each in desk.machine.limit("e", desk.now).forecasts] == [0, 0]


def test_late_booking_is_a_promise_not_kept(desk: Desk) -> None:
    booking = desk.book("e", count=40, not_before_ns=SECOND)
    desk.do(UpdateLimit(endpoint="e", windows={100 * SECOND: 30}))
    desk.advance(SECOND)
    refused = desk.refused(
        wanted(booking_id=booking.id).__class__(endpoint="e", worker="w1", booking_id=booking.id)
    )
    assert refused.reason == Reason.WINDOW_FULL
    assert desk.machine.limit("e", desk.now).scheduling_error_ns == refused.retry_at - booking.execute_at


def test_demand_of_a_bin_is_part_of_the_digest(desk: Desk) -> None:
    assert T0 % BIN_NS == 0
    before = desk.machine.digest()
    desk.permit("e")
    assert desk.machine.digest() != before


def test_hour_that_had_nothing_keeps_the_level(desk: Desk) -> None:
    """A profile can't say how much more than nothing an hour is."""
    for hour in range(60):
        if hour % 24 != 5:
            learn(desk, per_bin=1, bins=1)
        desk.advance((T0 // HOUR + hour + 1) * HOUR - desk.now)
    learn(desk, per_bin=1, bins=1)
    assert rates(desk)[CRITICAL] > 0


def test_a_look_changes_nothing_that_is_decided_after_it(desk: Desk) -> None:
    """What is expected holds for a bin, whoever asks for it first and whenever in it."""
    desk.advance(2 * HOUR - MINUTE - desk.now % HOUR)
    profile = str([10**6, 9 * 10**6] * 12)
    told = []
    for looks_at in ([BIN_NS - 1], [0, BIN_NS - 1]):
        desk.restart()
        forecasts = desk.machine._rate_limits.limit("e").forecasts
        assert forecasts is not None
        forecasts.load(Forecast("limit/e", CRITICAL, 10**6, desk.now, -1, profile))
        for after_ns in looks_at:
            now = desk.now + after_ns
            ppm = forecasts.expected_above(LOW, 100 * SECOND, now, now)
        told.append(ppm)
    assert told[0] == told[1]
