"""Factors on limits and pools."""

import pytest
from msgspec.structs import replace
from planning_desk import RULES

from coordd.core.limits import SECOND
from coordd.core.rules import PoolRule
from coordd.planning.what_if import scaled


def test_an_endpoint_in_all_its_windows() -> None:
    rules = scaled(RULES, {"post": 2.0})
    assert rules.limits["post"].windows == {100 * SECOND: 6, 500 * SECOND: 18}
    assert rules.limits["post"].use_within_ns == RULES.limits["post"].use_within_ns
    assert rules.pools == RULES.pools


def test_an_endpoint_with_all_its_credentials() -> None:
    rules = scaled(
        replace(RULES, limits={"post@a": RULES.limits["post"], "poster": RULES.limits["post"]}), {"post": 2}
    )
    assert [limit.windows[100 * SECOND] for limit in rules.limits.values()] == [6, 3]


def test_pools_of_either_sort() -> None:
    rules = scaled(RULES, {"pipeline": 0.5, "tweets": 3})
    assert rules.pools["pipeline"].capacity == 2
    refilling = rules.pools["tweets"].limit
    assert refilling is not None
    assert refilling.windows == {100 * SECOND: 6}


def test_an_adaptive_pool_with_its_bounds() -> None:
    adaptive = PoolRule(capacity=10, capacity_min=4, capacity_max=20)
    pool = scaled(replace(RULES, pools={"p": adaptive}), {"p": 2}).pools["p"]
    assert (pool.capacity_min, pool.capacity, pool.capacity_max) == (8, 20, 40)


def test_never_less_than_one() -> None:
    assert set(scaled(RULES, {"post": 0.001}).limits["post"].windows.values()) == {1}


def test_what_there_is_not() -> None:
    with pytest.raises(ValueError, match="no endpoint and no pool 'past'; there are: post, pipeline, tweets"):
        scaled(RULES, {"past": 2})
