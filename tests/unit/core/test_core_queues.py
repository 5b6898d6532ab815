import pytest

from coordd.core.queues import Queues


@pytest.fixture
def queues() -> Queues:
    queues = Queues()
    for rank, units in (((5, 2), 3), ((5, 1), 1), ((4, 3), 2)):
        queues.add("pool", rank, units)
    return queues


def test_smaller_key_goes_first_and_among_equals_the_smaller_id(queues: Queues) -> None:
    order = []
    while (rank := queues.head("pool")) is not None:
        order.append(rank)
        queues.remove("pool", rank, {2: 3, 1: 1, 3: 2}[rank[1]])
    assert order == [(4, 3), (5, 1), (5, 2)]


def test_empty_queue_does_not_exist(queues: Queues) -> None:
    for rank, units in (((5, 2), 3), ((5, 1), 1), ((4, 3), 2)):
        assert "pool" in queues
        queues.remove("pool", rank, units)
    assert "pool" not in queues
    assert queues.units == {}
    assert queues.length("pool") == 0
    assert queues.head("pool") is None
    assert not queues.is_ahead("pool", (1, 1))
    assert queues.position("pool", (1, 1)) == 1
    assert queues.units_ahead("pool", (9, 9)) == 0


def test_somebody_is_ahead_only_of_larger_ranks(queues: Queues) -> None:
    assert queues.is_ahead("pool", (4, 4))
    assert not queues.is_ahead("pool", (4, 3))
    assert not queues.is_ahead("pool", (3, 9))


def test_position_counts_from_one_for_waiters_and_newcomers(queues: Queues) -> None:
    assert queues.length("pool") == 3
    assert [queues.position("pool", rank) for rank in ((4, 3), (5, 1), (5, 2))] == [1, 2, 3]
    assert queues.position("pool", (9, 9)) == 4


def test_units_ahead_are_a_part_of_the_queue_s_units_rounded_up(queues: Queues) -> None:
    assert queues.units["pool"] == 6
    assert queues.units_ahead("pool", (4, 3)) == 0
    assert queues.units_ahead("pool", (5, 1)) == 2
    assert queues.units_ahead("pool", (9, 9)) == 6
