from itertools import pairwise

import pytest

from coordd.core.expected import Expected, expected_of
from coordd.core.limits import SECOND

EVEN = Expected(10_000_000, 100 * SECOND, 8)


def test_calls_come_evenly_up_to_the_most() -> None:
    assert [EVEN.within(seconds * SECOND) for seconds in (0, 4, 5, 10, 79, 100, 1_000)] == [
        0,
        0,
        1,
        1,
        8,
        8,
        8,
    ]


@pytest.mark.parametrize("units", range(8))
def test_units_suffice_from_the_instant_told_and_not_before(units: int) -> None:
    ends = 1_000 * SECOND
    at = EVEN.clears_at(units, ends)
    assert EVEN.within(ends - at) == units
    assert EVEN.within(ends - at + 1) == units + 1


def test_what_comes_whatever_happens_is_not_put_off() -> None:
    since, ends = 500 * SECOND, 540 * SECOND
    assert EVEN.clears_at(3, ends, since) == ends
    assert EVEN.clears_at(4, ends, since) == since


def test_few_calls_have_the_larger_margin() -> None:
    margins = []
    for calls in (1, 4, 25, 100):
        expected = expected_of(calls * 1_000_000, SECOND, 1_000)
        assert expected is not None
        margins.append(expected.most / calls)
    assert margins == [4, 2.5, 1.6, 1.3]
    assert all(few > many for few, many in pairwise(margins))


def test_hardly_any_call_is_none() -> None:
    assert expected_of(10_000, SECOND, 1_000) is None
    assert expected_of(5_000_000, SECOND, 0) is None
