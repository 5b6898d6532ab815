from coordd.core.oversized import Oversized
from coordd.core.queues import Rank


def rank(order: int) -> Rank:
    return (order, order, 2, "w")


def test_those_in_reach_are_looked_at_by_rank_whatever_they_want() -> None:
    in_reach: set[int] = set()
    waiting = Oversized(in_reach.__contains__)
    for order, units in ((1, 7), (2, 5), (3, 7), (4, 9)):
        waiting.add(rank(order), units)
    assert waiting.heads(0) == []
    in_reach.update({5, 7})
    assert waiting.heads(0) == [rank(1), rank(2), rank(3)]
    waiting.remove(rank(2), 5, 0)
    waiting.remove(rank(1), 7, 0)
    assert waiting.heads(0) == [rank(3)]


def test_nobody_holds_anybody_up() -> None:
    waiting = Oversized(set[int]().__contains__)
    waiting.add(rank(1), 7)
    waiting.add(rank(2), 5)
    assert waiting.classes_ahead(rank(3), 0) == []
    assert [waiting.before(rank(order), 0) for order in (1, 2, 3)] == [0, 1, 2]
    assert waiting.changes_at(0) == 0
