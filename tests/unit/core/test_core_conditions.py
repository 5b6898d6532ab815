from coordd.core.commands import AcquireBundle, NotEngaged, RequestLock
from coordd.core.conditions import Conditions
from coordd.core.records import Engagement, Outcome
from coordd.core.waiters import Waiter


def waiter(id: int, *items: str) -> tuple[Waiter, AcquireBundle]:
    command = AcquireBundle(
        worker="w", not_engaged=tuple(NotEngaged(item=item, within_ns=1) for item in items)
    )
    return Waiter(id, command, 0, 0, 1), command


def engagement(item: str, outcome: int = Outcome.SUCCESS) -> Engagement:
    return Engagement(1, item, "reply", "w", outcome, 1, 1, 0)


def test_only_what_counts_and_somebody_depends_on_is_noted() -> None:
    conditions = Conditions()
    first, asked = waiter(1, "a", "b")
    second, also_asked = waiter(2, "b")
    conditions.begin(first, asked)
    conditions.begin(second, also_asked)
    for noted in (engagement("a"), engagement("b", Outcome.FAILURE), engagement("c")):
        conditions.note(noted)
    assert conditions.broken == ["a"]
    assert {item: list(waiters) for item, waiters in conditions.of.items()} == {"a": [1], "b": [1, 2]}
    conditions.end(first)
    assert list(conditions.of) == ["b"]
    conditions.end(second)
    conditions.end(second)
    assert conditions.of == {}


def test_who_waits_without_conditions_is_not_there() -> None:
    conditions = Conditions()
    alone = Waiter(1, RequestLock(item="a", kind="like", worker="w"), 0, 0, 1)
    conditions.end(alone)
    assert conditions.of == {}
