from coordd.core.deadlines import Deadlines
from coordd.core.limits import DUE_PER_TICK_MAX
from coordd.core.recall import Recall


def test_forgets_first_in_first_out_each_after_its_time() -> None:
    forgotten: list[str] = []
    deadlines = Deadlines()
    recall = Recall(deadlines, 10, forgotten.append)
    recall.remember("a", 1)
    recall.remember("b", 4)
    assert (deadlines.next_at(), len(deadlines), len(recall)) == (11, 1, 2)
    assert deadlines.pop_due(11) is recall
    recall.sweep(11)
    assert (forgotten, deadlines.next_at()) == (["a"], 14)
    assert deadlines.pop_due(20) is recall
    recall.sweep(20)
    assert (forgotten, deadlines.next_at()) == (["a", "b"], None)


def test_oldest_can_be_forgotten_before_its_time() -> None:
    forgotten: list[str] = []
    deadlines = Deadlines()
    recall = Recall(deadlines, 10, forgotten.append)
    recall.remember("a", 1)
    recall.remember("b", 4)
    recall.forget_oldest()
    assert deadlines.pop_due(11) is recall
    recall.sweep(11)
    assert forgotten == ["a"]
    assert deadlines.next_at() == 14


def test_one_sweep_is_bounded_and_the_rest_is_due_at_once() -> None:
    forgotten: list[int] = []
    deadlines = Deadlines()
    recall = Recall(deadlines, 10, forgotten.append)
    for number in range(DUE_PER_TICK_MAX + 1):
        recall.remember(number, 1)
    assert deadlines.pop_due(11) is recall
    recall.sweep(11)
    assert len(forgotten) == DUE_PER_TICK_MAX
    assert deadlines.next_at() == 11
