from coordd.core.deadlines import Deadlines
from coordd.core.engagements import Engagements
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.records import Engagement, Outcome

T0 = 1_000 * HOUR


def engagement(token: int, at: int, *, item: str = "a", kind: str = "reply", outcome: int = 1) -> Engagement:
    return Engagement(token, item, kind, f"w{token}", outcome, at, at, 0)


def test_the_latest_that_counts_is_found_by_item_kind_and_time() -> None:
    engagements = Engagements(HOUR, Deadlines())
    reply = engagement(1, T0)
    like = engagement(2, T0 + MINUTE, kind="like", outcome=Outcome.UNKNOWN)
    failed = engagement(3, T0 + 2 * MINUTE, outcome=Outcome.FAILURE)
    for each in (reply, like, failed):
        engagements.remember(each)
    assert engagements.latest("a", (), T0 - 1) is like
    assert engagements.latest("a", ("reply",), T0 - 1) is reply
    # One that is as old as the condition looks back is old enough.
    assert engagements.latest("a", ("reply",), T0) is None
    assert engagements.latest("a", ("quote",), 0) is None
    assert engagements.latest("b", (), 0) is None
    assert list(engagements) == [reply, like]


def test_what_is_older_than_the_memory_is_forgotten() -> None:
    deadlines = Deadlines()
    engagements = Engagements(HOUR, deadlines)
    for token, at, kind in ((1, T0, "reply"), (2, T0 + MINUTE, "reply"), (3, T0 + MINUTE, "like")):
        engagements.remember(engagement(token, at, kind=kind))
    for now in (T0 + HOUR, T0 + HOUR + MINUTE):
        recall = deadlines.pop_due(now + HOUR)
        assert recall is not None
        recall.sweep(now)  # type: ignore[attr-defined]
    assert list(engagements) == []
    assert engagements.latest("a", (), 0) is None


def test_without_a_memory_nothing_is_remembered() -> None:
    deadlines = Deadlines()
    engagements = Engagements(0, deadlines)
    engagements.remember(engagement(1, T0))
    assert list(engagements) == []
    assert len(deadlines) == 0


def test_kinds_may_be_remembered_for_longer_than_others() -> None:
    deadlines = Deadlines()
    engagements = Engagements(MINUTE, deadlines, {"reply": HOUR, "like": SECOND})
    reply, like = engagement(1, T0), engagement(2, T0, kind="like")
    for each in (reply, like):
        engagements.remember(each)
    recall = deadlines.pop_due(T0 + 2 * MINUTE)
    assert recall is not None
    recall.sweep(T0 + 2 * MINUTE)  # type: ignore[attr-defined]
    assert list(engagements) == [reply]
    assert engagements.of_item("a") == {("reply", 1): reply}
    assert engagements.of_item("b") is None


def test_the_latest_of_each_outcome_is_remembered() -> None:
    engagements = Engagements(HOUR, Deadlines())
    unknown = engagement(1, T0, outcome=Outcome.UNKNOWN)
    first, second = engagement(2, T0 + 1), engagement(3, T0 + 2)
    for each in (unknown, first, second):
        engagements.remember(each)
    assert list(engagements) == [unknown, second]
    assert engagements.latest("a", (), 0) is second
