from coordd.core.deadlines import Deadlines
from coordd.core.limits import FORGOTTEN_PER_SWEEP_MAX
from coordd.core.recall import Recall

# A thousandth of it, rounded down to 1, is how much longer memories may be kept.
KEEP = 1_024


def test_forgets_first_in_first_out_none_early_and_none_more_than_a_thousandth_late() -> None:
    forgotten: list[str] = []
    deadlines = Deadlines()
    recall = Recall(deadlines, KEEP, forgotten.append)
    recall.remember("a", 1)
    recall.remember("b", 5)
    assert (deadlines.next_at(), len(deadlines), len(recall)) == (KEEP + 2, 1, 2)
    assert deadlines.pop_due(KEEP + 2) is recall
    recall.sweep(KEEP + 2)
    assert (forgotten, deadlines.next_at()) == (["a"], KEEP + 6)
    assert deadlines.pop_due(KEEP + 6) is recall
    recall.sweep(KEEP + 6)
    assert (forgotten, deadlines.next_at()) == (["a", "b"], None)


def test_what_is_due_by_then_is_forgotten_in_one_sweep() -> None:
    forgotten: list[str] = []
    recall = Recall(Deadlines(), KEEP, forgotten.append)
    recall.remember("a", 1)
    recall.remember("b", 2)
    recall.sweep(KEEP + 2)
    assert forgotten == ["a", "b"]


def test_oldest_can_be_forgotten_before_its_time() -> None:
    forgotten: list[str] = []
    deadlines = Deadlines()
    recall = Recall(deadlines, KEEP, forgotten.append)
    recall.remember("a", 1)
    recall.remember("b", 5)
    recall.forget_oldest()
    assert deadlines.pop_due(KEEP + 2) is recall
    recall.sweep(KEEP + 2)
    assert forgotten == ["a"]
    assert deadlines.next_at() == KEEP + 6


def test_one_sweep_is_bounded_and_the_rest_is_due_at_once() -> None:
    forgotten: list[int] = []
    deadlines = Deadlines()
    recall = Recall(deadlines, KEEP, forgotten.append)
    for number in range(FORGOTTEN_PER_SWEEP_MAX + 1):
        recall.remember(number, 1)
    assert deadlines.pop_due(KEEP + 2) is recall
    recall.sweep(KEEP + 2)
    assert len(forgotten) == FORGOTTEN_PER_SWEEP_MAX
    assert deadlines.next_at() == KEEP + 2
