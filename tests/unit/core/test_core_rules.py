from itertools import pairwise

from coordd.core.limits import HOUR, MINUTE
from coordd.core.rules import CRITICAL, PRIORITIES, Rules, contradiction


def test_windows_that_agree_have_no_contradiction() -> None:
    assert contradiction({15 * MINUTE: 180, HOUR: 720, 24 * HOUR: 17_280}) is None
    assert contradiction({HOUR: 5}) is None
    assert contradiction({HOUR: 5, 15 * MINUTE: 5}) is None


def test_longer_window_with_less_contradicts() -> None:
    assert contradiction({HOUR: 100, 15 * MINUTE: 180}) == "100 in 1h is less than 180 in 15m"


def test_longer_window_that_can_not_be_reached_contradicts() -> None:
    assert contradiction({15 * MINUTE: 50, HOUR: 201}) == "201 in 1h can't be reached with 50 in 15m"
    assert contradiction({15 * MINUTE: 50, HOUR: 200}) is None


def test_length_that_is_no_multiple_is_rounded_up() -> None:
    assert contradiction({15 * MINUTE: 10, 20 * MINUTE: 20}) is None


def test_boosts_rise_with_priority_and_quality_is_smaller_than_any_step() -> None:
    rules = Rules(kinds={}, types={}, pools={}, limits={})
    boosts = [rules.boost_ns[priority] for priority in PRIORITIES]
    steps = [high - low for low, high in pairwise(boosts)]
    assert min(steps) > rules.quality_boost_ns
    assert rules.boost_ns[CRITICAL] >= 365 * 24 * HOUR
