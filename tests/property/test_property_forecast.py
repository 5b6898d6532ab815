"""Forecasts and pace against an upstream that counts, and against arithmetic done the slow way."""

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from forecast_rig import T0, Call, Rig, SlowRate
from hypothesis import settings

from coordd.core.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND
from coordd.core.outcomes import Granted, Reason, Refused
from coordd.core.records import Table
from coordd.core.rules import CRITICAL, HIGH, LOW, MEDIUM, PRIORITIES, LimitRule

_SEEDS = 3 if settings().max_examples < 1_000 else 1_000
_BIN = 10 * SECOND
_SLACK = 20 * MILLISECOND


def _rule(*, is_even: bool = False, forecast_max: float = 0.5) -> LimitRule:
    return LimitRule(
        windows={20 * SECOND: 10, 60 * SECOND: 24},
        use_within_ns=2 * SECOND,
        claim_window_ns=3 * SECOND,
        forecast_max=forecast_max,
        is_even=is_even,
    )


# -- any history ---------------------------------------------------------------------------------------------


def _deeds(rig: Rig) -> list[Callable[[], object]]:
    random = rig.random

    def take() -> object:
        priority = random.choice(PRIORITIES)
        return rig.take(priority, random.choice([1, 1, 1, 2, 5]), random.choice([0, 30 * SECOND, DAY]))

    def book() -> object:
        bookable = len(rig.bookings) < 8
        return bookable and rig.book(random.choice(PRIORITIES), 1, random.choice([0, 20 * SECOND]))

    def claim() -> object:
        due = [booking for booking in rig.bookings if booking.execute_at <= rig.now]
        gone = [booking for booking in due if booking.claim_until <= rig.now]
        rig.bookings = [booking for booking in rig.bookings if booking not in gone]
        return [rig.claim(booking) for booking in due if booking not in gone]

    def report() -> object:
        calls = rig.open()
        return calls and rig.report(random.choice(calls), is_sent=random.random() < 0.9)

    def wait() -> object:
        return rig.advance(rig.now + random.choice([1, SECOND // 3, SECOND, 7 * SECOND]))

    return [take, take, take, take, book, claim, report, report, wait, wait, wait]


def _run(seed: int, steps: int, *, is_even: bool) -> Rig:
    rig = Rig(_rule(is_even=is_even), seed)
    for step in range(steps):
        rig.random.choice(_deeds(rig))()
        if step % 10 == 0:
            rig.check_nobody_left_behind()
    rig.check_nobody_left_behind()
    return rig


@pytest.mark.parametrize("is_even", [False, True])
@pytest.mark.parametrize("seed", range(_SEEDS))
def test_windows_hold_and_nobody_is_left_behind_whatever_happens(seed: int, *, is_even: bool) -> None:
    rig = _run(seed, 250, is_even=is_even)
    rig.check_windows()
    if is_even:
        rig.check_pace(lambda call: call.permit.priority < CRITICAL and not call.is_booked, _SLACK)
    assert rig.replay().digest() == rig.machine.digest()


@pytest.mark.parametrize("is_even", [False, True])
@pytest.mark.parametrize("seed", range(_SEEDS))
def test_recovered_machine_expects_the_same_and_never_paces_faster(seed: int, *, is_even: bool) -> None:
    rig = _run(seed, 150, is_even=is_even)
    # Demand that no bin has ended with is not known after a restart.
    rig.advance(rig.now // _BIN * _BIN + _BIN)
    before = rig.machine.limit("e", rig.now).forecasts
    rig.restart()
    assert [row[:6] for row in rig.machine.snapshot()[Table.FORECASTS]] == sorted(
        rig.rows[Table.FORECASTS].values()
    )
    assert [(f.priority, f.rate_ppm) for f in rig.machine.limit("e", rig.now).forecasts] == [
        (f.priority, f.rate_ppm) for f in before
    ]
    rig.bookings.clear()
    for _ in range(60):
        rig.take(rig.random.choice([LOW, HIGH]))
        rig.advance(rig.now + SECOND // 2)
    rig.check_windows()
    if is_even:
        rig.check_pace(lambda call: call.permit.priority < CRITICAL and not call.is_booked, _SLACK)


# -- what is promised ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_even", [False, True])
@pytest.mark.parametrize("seed", range(_SEEDS))
def test_refused_caller_is_told_when_it_can_and_then_it_can(seed: int, *, is_even: bool) -> None:
    """At the instant told it succeeds if nothing else happens, and before it only what is expected fades."""
    rig = _run(seed, 100, is_even=is_even)
    rig.advance(rig.now + HOUR)
    for priority in [CRITICAL, HIGH, CRITICAL, MEDIUM] * 40:
        rig.take(priority, wait_ns=0)
        rig.advance(rig.now + rig.random.choice([0, SECOND // 2, 3 * SECOND]))
    rig.advance(rig.now // _BIN * _BIN + _BIN)
    for priority in (LOW, MEDIUM, HIGH, CRITICAL):
        while isinstance(refused := rig.take(priority, wait_ns=0), Granted):
            pass
        sooner = min(refused.retry_at, rig.now // _BIN * _BIN + _BIN)
        rig.advance(sooner - 1)
        assert isinstance(rig.take(priority, wait_ns=0), Refused)
        rig.advance(refused.retry_at)
        assert isinstance(rig.take(priority, wait_ns=0), Granted)


@pytest.mark.parametrize("is_even", [False, True])
@pytest.mark.parametrize("seed", range(_SEEDS))
def test_waiters_are_served_by_their_retry_at_when_nothing_else_happens(seed: int, *, is_even: bool) -> None:
    rig = _run(seed, 100, is_even=is_even)
    rig.advance(rig.now + HOUR)
    for _ in range(30):
        rig.take(rig.random.choice(PRIORITIES), wait_ns=0)
        rig.advance(rig.now + SECOND // 2)
    rig.waiting.clear()
    for _ in range(20):
        rig.take(rig.random.choice([LOW, MEDIUM]))
    while rig.waiting:
        first = min(rig.waiting, key=lambda waiter: rig.machine.place(waiter, rig.now).position)  # type: ignore[union-attr]
        place = rig.machine.place(first, rig.now)
        assert place is not None
        rig.advance(place.blocked_by.retry_at)
        assert first not in rig.waiting


@pytest.mark.parametrize("is_even", [False, True])
@pytest.mark.parametrize("seed", range(_SEEDS))
def test_bookings_can_be_claimed_at_their_time_and_are_spaced(seed: int, *, is_even: bool) -> None:
    rig = Rig(_rule(is_even=is_even), seed)
    booked = []
    for _ in range(150):
        rig.take(rig.random.choice(PRIORITIES), wait_ns=rig.random.choice([0, DAY]))
        if rig.random.random() < 0.3 and len(rig.bookings) < 10:
            booked.append(
                rig.book(rig.random.choice([LOW, HIGH]), not_before_ns=rig.random.choice([0, HOUR]))
            )
        rig.advance(rig.now + SECOND)
        for booking in [each for each in rig.bookings if each.execute_at <= rig.now]:
            assert isinstance(rig.claim(booking), Granted)
    starts = sorted(booking.execute_at for booking in booked)
    if is_even:
        assert all(later - earlier >= 2.5 * SECOND for earlier, later in pairwise(starts))
    assert rig.machine.limit("e", rig.now).scheduling_error_ns is not None
    rig.check_windows()


# -- two classes ---------------------------------------------------------------------------------------------


def _two_classes(
    rule: LimitRule, gap: Callable[[Random], float], *, seed: int, seconds: int
) -> tuple[Rig, float]:
    """Run a mix of critical calls and a flood of low ones; return the rig, and the mean use of the window.

    Both of the second half only: the first one is for learning.
    """
    ((_, limit),) = rule.windows.items()
    rig = Rig(rule, seed)
    ends, half = T0 + seconds * SECOND, T0 + seconds * SECOND // 2
    next_critical, area, flooded = T0, 0, 0
    while rig.now < ends:
        if rig.now >= next_critical:
            rig.take(CRITICAL)
            next_critical += int(gap(rig.random) * SECOND)
        flooded = sum(priority == LOW for priority, _, _ in rig.waiting.values())
        for _ in range(flooded, 20):
            rig.take(LOW)
        for call in rig.calls[-limit:]:
            if not call.is_settled:
                rig.report(call)
        if half - SECOND < rig.now <= half:
            rig.waited.clear()
        due_at = rig.machine.next_deadline() or next_critical
        then = max(rig.now + 1, min(next_critical, due_at))
        if rig.now >= half:
            area += rig.machine.limit("e", rig.now).windows[0].used * (then - rig.now)
        rig.advance(then)
    return rig, area / limit / (rig.now - half)


def _p99(waits: list[int]) -> int:
    return sorted(waits)[int(len(waits) * 0.99)]


@pytest.mark.parametrize(
    ("seed", "gap"),
    [
        (0, lambda _: 10 / 3),
        (1, lambda random: random.expovariate(0.3)),
        (2, lambda random: random.expovariate(0.1)),
    ],
)
def test_critical_calls_rarely_wait_low_ones_move_and_nothing_is_idle(
    seed: int, gap: Callable[[Random], float]
) -> None:
    def run(forecast_max: float) -> tuple[Rig, float]:
        rule = LimitRule(windows={100 * SECOND: 100}, use_within_ns=10 * SECOND, forecast_max=forecast_max)
        return _two_classes(rule, gap, seed=seed, seconds=4_000)

    (without, _), (with_it, utilisation) = run(0.0), run(0.5)
    assert utilisation >= 0.99
    assert _p99(list(with_it.waits(CRITICAL))) <= 0.2 * _p99(list(without.waits(CRITICAL)))
    # 2,000 s allow 2,000 calls; what the critical ones don't take, the low ones get.
    assert sum(1 for _ in with_it.waits(LOW)) >= 1_980 - 2 * 0.3 * 1_000 * 1.1
    with_it.check_windows()


@pytest.mark.parametrize("forecast_max", [0.0, 0.5])
def test_even_pace_uses_the_whole_window(forecast_max: float) -> None:
    rule = LimitRule(
        windows={100 * SECOND: 100}, use_within_ns=10 * SECOND, forecast_max=forecast_max, is_even=True
    )
    rig, utilisation = _two_classes(rule, lambda _: 10.0, seed=0, seconds=3_000)
    assert utilisation >= 0.99
    rig.check_pace(_is_low, _SLACK)
    rig.check_windows()


def _is_low(call: Call) -> bool:
    return call.permit.priority == LOW


# -- the arithmetic ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(_SEEDS))
def test_rate_is_what_the_slow_way_gives(seed: int) -> None:
    """A day and more, so that the hours of the day come into it."""
    random, slow = Random(seed), SlowRate()
    rig = Rig(LimitRule(windows={SECOND: 1_000_000}, forecast_max=0.5))
    busy = [random.choice([0, 0, 1, 4]) for _ in range(24)]
    for number in range(30 * 360):
        count = random.randrange(3) * busy[(number // 360 + 3) % 24]
        if count:
            rig.take(LOW, count)
        slow.bin(count)
        rig.advance(T0 + (number + 1) * _BIN)
        forecasts = rig.machine.limit("e", rig.now).forecasts
        # The core learns from an hour that has ended, idle or not, only when the next call comes.
        if count and (number + 1) % 360:
            assert forecasts[0].rate_ppm / 1e6 == pytest.approx(slow.expected(), rel=0.02, abs=0.002)


def test_headroom_is_ready_when_the_busy_hour_begins() -> None:
    """Critical calls come from 9 to 10 only; on the fourth day room is left before the first comes."""
    rig = Rig(LimitRule(windows={10 * MINUTE: 100}, use_within_ns=SECOND, forecast_max=0.5))
    midnight = T0 // DAY * DAY + DAY
    for day in range(3):
        for minute in range(60):
            rig.advance(midnight + day * DAY + 9 * HOUR + minute * MINUTE)
            rig.take(CRITICAL, 4)
    rig.advance(midnight + 3 * DAY + 3 * HOUR)
    assert isinstance(rig.take(LOW, 99, wait_ns=0), Granted)
    rig.advance(midnight + 3 * DAY + 9 * HOUR - MINUTE)
    while isinstance(refused := rig.take(LOW, wait_ns=0), Granted):
        pass
    assert refused.reason is Reason.HEADROOM
    assert isinstance(rig.take(CRITICAL, 30, wait_ns=0), Granted)
