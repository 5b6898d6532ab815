"""Levels over time."""

from coordd.planning.levels import Level

# 2 from 10 to 20, 5 from 20 to 30, then 0; from 50 on 1.
LEVEL = Level([(30, -5), (10, 2), (20, 3), (50, 1)])


def test_mean_over_spans() -> None:
    assert LEVEL.mean([(0, 30)]) == (2 * 10 + 5 * 10) / 30
    assert LEVEL.mean([(15, 25), (45, 55)]) == (2 * 5 + 5 * 5 + 1 * 5) / 20
    assert LEVEL.mean([]) is None
    assert Level([]).mean([(0, 10)]) == 0


def test_peak_and_highest() -> None:
    assert LEVEL.peak() == (5, 20)
    assert Level([]).peak() == (0, 0)
    assert [LEVEL.highest(*span) for span in [(0, 10), (0, 11), (10, 20), (15, 21), (30, 50), (60, 70)]] == [
        0,
        2,
        2,
        5,
        0,
        1,
    ]
    assert Level([]).highest(0, 10) == 0


def test_changes_at_one_instant_are_one() -> None:
    assert Level([(10, 1), (10, -1), (10, 1), (20, -1)]).peak() == (1, 10)
    assert list(Level([(10, 1), (20, -1), (20, 1), (30, -1)]).above_zero(100)) == [(10, 30)]


def test_above_zero() -> None:
    assert list(LEVEL.above_zero(60)) == [(10, 30), (50, 60)]
    assert list(LEVEL.above_zero(50)) == [(10, 30)]


def test_the_shortest_stretch_with_most_of_it() -> None:
    # 20 + 50 + 10: five eighths of it are within 20..30.
    assert LEVEL.bulk(0.6, 60) == (20, 30)
    assert LEVEL.bulk(0.8, 60) == (10, 30)
    assert LEVEL.bulk(1.0, 60) == (10, 60)
    assert Level([]).bulk(0.5, 60) is None
