from typing import Any

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import ReserveResource, TakePermit, UpdateLimit, UpdatePool
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.outcomes import Reason
from coordd.core.records import Table
from coordd.core.rules import LimitRule, PoolRule

SHORT, LONG = 100 * SECOND, 500 * SECOND


def limits_of(desk: Desk, endpoint: str = "search") -> list[int]:
    return [window.limit for window in desk.machine.limit(endpoint, desk.now).windows]


def overrides(desk: Desk) -> list[tuple[Any, ...]]:
    """Return the stored changes."""
    desk.commit()
    return sorted(desk.rows[Table.OVERRIDES].values())


def test_raised_limit_holds_at_once_and_serves_those_who_wait(desk: Desk) -> None:
    desk.permit(count=3)
    waiter = desk.wait(TakePermit(endpoint="search", worker="w2", count=2, wait_ns=HOUR))
    desk.do(UpdateLimit(endpoint="search", windows={SHORT: 5}))
    assert desk.granted(waiter)
    assert limits_of(desk) == [5, 10]
    assert desk.machine.limit("search", desk.now).is_overridden


def test_raised_capacity_serves_those_who_wait(desk: Desk) -> None:
    desk.reserve(units=3)
    waiter = desk.wait(ReserveResource(type="db", worker="w2", units=2, wait_ns=HOUR))
    desk.do(UpdatePool(name="conns", capacity=5))
    assert desk.granted(waiter)


def test_raised_refilling_pool_serves_those_who_wait(desk: Desk) -> None:
    desk.reserve("post", units=3)
    waiter = desk.wait(ReserveResource(type="post", worker="w2", wait_ns=HOUR))
    desk.do(UpdatePool(name="tweets", windows={SHORT: 4}))
    assert desk.granted(waiter)
    assert desk.machine.pool("tweets", desk.now).is_overridden


def test_lowered_limit_takes_nothing_back_and_grants_nothing_new(desk: Desk) -> None:
    desk.permit(count=3)
    desk.do(UpdateLimit(endpoint="search", windows={SHORT: 2}))
    view = desk.machine.limit("search", desk.now).windows[0]
    assert (view.used, view.remaining) == (3, 0)
    assert desk.refused(TakePermit(endpoint="search", worker="w2")).reason == Reason.WINDOW_FULL


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("UNKNOWN_ENDPOINT", UpdateLimit(endpoint="unheard of", windows={SHORT: 1})),
        ("UNKNOWN_WINDOW", UpdateLimit(endpoint="search", windows={SECOND: 1})),
        ("UNKNOWN_WINDOW", UpdateLimit(endpoint="search", windows={})),
        ("CONTRADICTING_WINDOWS", UpdateLimit(endpoint="search", windows={SHORT: 11})),
        ("UNKNOWN_POOL", UpdatePool(name="unheard of", capacity=1)),
        ("INVALID_COUNT", UpdatePool(name="conns")),
        ("INVALID_COUNT", UpdatePool(name="conns", windows={SHORT: 1})),
        ("INVALID_COUNT", UpdatePool(name="conns", capacity=1, windows={SHORT: 1})),
        ("INVALID_COUNT", UpdatePool(name="tweets", capacity=1)),
        ("UNKNOWN_WINDOW", UpdatePool(name="tweets", windows={SECOND: 1})),
    ],
)
def test_change_that_can_not_be_is_an_error(desk: Desk, reason: str, command: Any) -> None:
    assert desk.error(command) == reason


def test_changes_are_checked_together_before_any_holds(desk: Desk) -> None:
    desk.do(UpdateLimit(endpoint="search", windows={SHORT: 11, LONG: 20}))
    assert limits_of(desk) == [11, 20]


def test_change_is_stored_beside_the_configured_value_and_holds_after_a_restart(desk: Desk) -> None:
    desk.do(UpdateLimit(endpoint="search", windows={SHORT: 5}))
    desk.do(UpdatePool(name="conns", capacity=7))
    desk.do(UpdatePool(name="tweets", windows={SHORT: 9}))
    assert overrides(desk) == [
        ("limit/search", SHORT, 5, 3),
        ("pool/conns", 0, 7, 3),
        ("pool/tweets", SHORT, 9, 3),
    ]
    desk.restart()
    assert limits_of(desk) == [5, 10]
    assert [pool.capacity for pool in desk.machine.pools(desk.now)] == [7, 9]
    assert len(overrides(desk)) == 3


def test_change_back_to_the_configured_value_is_no_change(desk: Desk) -> None:
    desk.do(UpdatePool(name="conns", capacity=7))
    desk.do(UpdatePool(name="conns", capacity=3))
    assert overrides(desk) == []
    assert not desk.machine.pool("conns", desk.now).is_overridden


def test_file_wins_again_once_it_says_something_new(desk: Desk) -> None:
    desk.do(UpdateLimit(endpoint="search", windows={SHORT: 5}))
    desk.do(UpdatePool(name="conns", capacity=7))
    rules = rules_of(
        limits={"search": LimitRule(windows={SHORT: 4, LONG: 10})},
        pools={**rules_of().pools, "conns": PoolRule(capacity=2)},
    )
    desk.restart(rules)
    assert limits_of(desk) == [4, 10]
    assert desk.machine.pool("conns", desk.now).capacity == 2
    assert overrides(desk) == []


def test_change_of_what_the_file_knows_no_longer_is_dropped(desk: Desk) -> None:
    desk.do(UpdateLimit(endpoint="search", windows={SHORT: 5}))
    desk.do(UpdatePool(name="conns", capacity=7))
    desk.do(UpdatePool(name="tweets", windows={SHORT: 9}))
    desk.restart(rules_of(limits={}, pools={}, types={}))
    assert overrides(desk) == []


def test_charges_of_a_window_that_is_configured_no_longer_are_dropped(desk: Desk) -> None:
    desk.permit()
    desk.reserve("post")
    desk.restart(rules_of(limits={"search": LimitRule(windows={SHORT: 3})}, pools={}, types={}))
    desk.commit()
    assert {key[:2] for key in desk.rows[Table.CELLS] if key[0] == "limit/search"} == {
        ("limit/search", SHORT)
    }
    assert desk.machine.limit("search", desk.now).windows[0].used == 1


def test_charges_of_a_pool_that_refills_no_longer_are_dropped_once_they_have_left(desk: Desk) -> None:
    desk.reserve("post")
    held = rules_of(pools={"conns": PoolRule(capacity=3), "tweets": PoolRule(capacity=3)})
    desk.restart(held)
    desk.commit()
    assert desk.rows[Table.CELLS] != {}
    desk.restart(held, down_ns=2 * MINUTE)
    desk.commit()
    assert desk.rows[Table.CELLS] == {}
