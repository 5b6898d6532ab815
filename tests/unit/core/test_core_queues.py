import pytest

from coordd.core.class_queues import ClassQueue
from coordd.core.queues import Queues, Rank
from coordd.core.rules import HIGH, LOW

KEY = ("pool", "p")
NOW = 0


def rank(order_ns: int, id: int, priority: int = LOW) -> Rank:
    return (order_ns, id, priority, "w1")


WAITERS = ((rank(5, 2), 3), (rank(5, 1), 1), (rank(4, 3), 2))


@pytest.fixture
def queues() -> Queues:
    queues = Queues()
    for each, units in WAITERS:
        queues.add(KEY, each, units)
    return queues


def test_smaller_key_goes_first_and_among_equals_the_smaller_id(queues: Queues) -> None:
    order = []
    while heads := queues.heads(KEY, NOW):
        order.append(heads[0][:2])
        queues.remove(KEY, heads[0], dict(WAITERS)[heads[0]], NOW)
    assert order == [(4, 3), (5, 1), (5, 2)]


def test_empty_queue_does_not_exist(queues: Queues) -> None:
    for each, units in WAITERS:
        assert KEY in queues
        queues.remove(KEY, each, units, NOW)
    assert KEY not in queues
    assert queues.units == {}
    assert queues.length(KEY) == 0
    assert queues.heads(KEY, NOW) == []
    assert not queues.is_ahead(KEY, rank(1, 1), NOW)
    assert queues.position(KEY, rank(1, 1), NOW) == 1
    assert queues.units_ahead(KEY, rank(9, 9), NOW) == 0


def test_somebody_is_ahead_only_of_larger_ranks(queues: Queues) -> None:
    assert queues.is_ahead(KEY, rank(4, 4), NOW)
    assert not queues.is_ahead(KEY, rank(4, 3), NOW)
    assert not queues.is_ahead(KEY, rank(3, 9), NOW)


def test_position_counts_from_one_for_waiters_and_newcomers(queues: Queues) -> None:
    assert queues.length(KEY) == 3
    assert [queues.position(KEY, each, NOW) for each in (rank(4, 3), rank(5, 1), rank(5, 2))] == [1, 2, 3]
    assert queues.position(KEY, rank(9, 9), NOW) == 4


def test_units_ahead_are_those_of_all_who_go_before(queues: Queues) -> None:
    assert queues.units[KEY] == 6
    assert queues.units_ahead(KEY, rank(4, 3), NOW) == 0
    assert queues.units_ahead(KEY, rank(5, 1), NOW) == 2
    assert queues.units_ahead(KEY, rank(9, 9), NOW) == 6


def test_queue_with_an_order_asks_it_who_is_first_and_still_counts_units_by_rank() -> None:
    queues = Queues()
    queues.orders[KEY] = ClassQueue(has_headroom=True)
    low, high = rank(4, 1), rank(5, 2, HIGH)
    queues.add(KEY, low, 3)
    queues.add(KEY, high, 1)
    assert queues.heads(KEY, NOW) == [low, high]
    assert queues.is_ahead(KEY, high, NOW)
    assert queues.classes_ahead(KEY, rank(6, 3, HIGH), NOW) == [LOW, HIGH]
    assert queues.position(KEY, high, NOW) == 2
    assert queues.units_ahead(KEY, high, NOW) == 2
    assert queues.units_before(KEY, high) == 3
    queues.remove(KEY, low, 3, NOW)
    assert queues.classes_ahead(KEY, high, NOW) == []


def test_what_is_set_aside_is_kept_from_those_behind_only(queues: Queues) -> None:
    other = ("lock", "a")
    first, second, third = rank(1, 9), rank(2, 8), rank(3, 7)
    queues.set_aside(KEY, second, 4)
    queues.set_aside(other, second, 1)
    assert [queues.units_aside(KEY, each) for each in (first, second, third)] == [0, 0, 4]
    assert [queues.is_claimed(other, each, NOW) for each in (first, second, third)] == [False, False, True]
    assert queues.units_before(KEY, rank(5, 1)) == 4 + 2
    assert queues.units_before(other, third) == 1
    queues.set_aside(KEY, first, 2)
    assert queues.units_aside(KEY, third) == 6
    for each in (first, second, third):
        queues.free(KEY, each)
        queues.free(other, each)
    queues.free(KEY, first)
    assert queues.aside == {}
    assert not queues.is_claimed(other, third, NOW)


def test_who_waits_for_something_exclusive_has_claimed_it(queues: Queues) -> None:
    assert queues.is_claimed(KEY, rank(5, 3), NOW)
    assert not queues.is_claimed(KEY, rank(4, 3), NOW)


def test_where_classes_share_what_is_set_aside_is_ahead_too(queues: Queues) -> None:
    shared = ("pool", "q")
    queues.orders[shared] = ClassQueue(has_headroom=False)
    queues.add(shared, rank(5, 2), 3)
    queues.set_aside(shared, rank(1, 1), 2)
    assert queues.units_ahead(shared, rank(6, 3), NOW) == 5
