from coordd.core.deadlines import Deadlines


class Alarm:
    """Something that can fall due."""

    def __init__(self) -> None:
        self.scheduled = 0


def popped(deadlines: Deadlines, now: int) -> list[object]:
    """Return all that is due."""
    due: list[object] = []
    while (target := deadlines.pop_due(now)) is not None:
        due.append(target)
    return due


def test_falls_due_in_order_and_equal_instants_in_order_of_scheduling() -> None:
    deadlines, first, second, third = Deadlines(), Alarm(), Alarm(), Alarm()
    deadlines.schedule(third, 9)
    deadlines.schedule(first, 5)
    deadlines.schedule(second, 5)
    assert deadlines.next_at() == 5
    assert popped(deadlines, 9) == [first, second, third]
    assert deadlines.next_at() is None


def test_nothing_is_due_early() -> None:
    deadlines, alarm = Deadlines(), Alarm()
    deadlines.schedule(alarm, 5)
    assert deadlines.pop_due(4) is None
    assert deadlines.pop_due(5) is alarm
    assert alarm.scheduled == 0


def test_new_instant_replaces_the_old() -> None:
    deadlines, alarm = Deadlines(), Alarm()
    deadlines.schedule(alarm, 5)
    deadlines.schedule(alarm, 5)
    deadlines.schedule(alarm, 8)
    assert popped(deadlines, 7) == []
    assert popped(deadlines, 8) == [alarm]


def test_not_after_leaves_an_earlier_deadline_and_moves_a_later_one() -> None:
    deadlines, alarm = Deadlines(), Alarm()
    deadlines.not_after(alarm, 5)
    deadlines.not_after(alarm, 8)
    assert (deadlines.next_at(), len(deadlines)) == (5, 1)
    deadlines.not_after(alarm, 3)
    assert deadlines.next_at() == 3


def test_cancelled_target_is_never_due() -> None:
    deadlines, alarm = Deadlines(), Alarm()
    deadlines.cancel(alarm)
    deadlines.schedule(alarm, 5)
    deadlines.cancel(alarm)
    assert popped(deadlines, 9) == []
    assert len(deadlines) == 0


def test_target_scheduled_again_for_the_instant_it_was_cancelled_at_is_due_once() -> None:
    deadlines, alarm = Deadlines(), Alarm()
    deadlines.schedule(alarm, 5)
    deadlines.cancel(alarm)
    deadlines.schedule(alarm, 5)
    assert popped(deadlines, 9) == [alarm]


def test_stale_entries_do_not_pile_up() -> None:
    deadlines, kept = Deadlines(), [Alarm() for _ in range(100)]
    for at, alarm in enumerate(kept, start=1):
        deadlines.schedule(alarm, at)
    for at in range(5_000):
        alarm = Alarm()
        deadlines.schedule(alarm, 1_000 + at)
        deadlines.cancel(alarm)
    assert len(deadlines) < 2_000
    due = popped(deadlines, 10_000)
    assert due == kept


def test_target_whose_deadline_only_ever_comes_earlier_leaves_a_bounded_heap() -> None:
    deadlines, target = Deadlines(), Alarm()
    for at in range(100_000, 0, -1):
        deadlines.schedule(target, at)
    assert len(deadlines) < 5_000
    assert deadlines.next_at() == 1


def test_target_that_was_moved_away_and_back_comes_after_those_scheduled_meanwhile() -> None:
    for is_looked_at in (False, True):
        deadlines, mover, other = Deadlines(), Alarm(), Alarm()
        deadlines.schedule(mover, 5)
        deadlines.schedule(mover, 9)
        deadlines.schedule(other, 5)
        if is_looked_at:
            assert deadlines.next_at() == 5
        deadlines.schedule(mover, 5)
        assert popped(deadlines, 9) == [other, mover]
