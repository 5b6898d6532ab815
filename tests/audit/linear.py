"""Is a history linearizable? Wing and Gong's search, with the memory of where it has been that Lowe added.

Owns: the search. Rules: an operation takes effect at one instant between its call and its return; one without
an answer does so at any time after its call, or never. The search is bounded, and says so when it has not
found out. What operations do, and when, is the model's; it may allow several outcomes.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

State = TypeVar("State", bound=Hashable)
Op = TypeVar("Op")

BUDGET: Final = 10_000


class Verdict(Enum):
    """What came out."""

    YES = "linearizable"
    NO = "not linearizable"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Event(Generic[Op]):
    """One operation. `returned` None: it has no answer, and need not take effect."""

    called: int
    returned: int | None
    op: Op


def check(
    events: Iterable[Event[Op]],
    initial: State,
    step: Callable[[State, Op, int, int], Iterable[State]],
    budget: int = BUDGET,
) -> Verdict:
    """Look for an order in which every operation does what it was answered.

    Args: step: the states to which an operation may lead that takes effect between two instants; none if it
    can't have been answered so there. budget: how many steps may be tried.
    """
    ordered = sorted(events, key=lambda event: event.called)
    required = sum(1 << index for index, event in enumerate(ordered) if event.returned is not None)
    seen: set[tuple[int, State]] = {(0, initial)}
    stack = [_choices(ordered, 0, initial, step)]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
            continue
        if found[0] & required == required:
            return Verdict.YES
        if found in seen:
            continue
        if len(seen) >= budget:
            return Verdict.UNDECIDED
        seen.add(found)
        stack.append(_choices(ordered, *found, step))
    return Verdict.YES if not required else Verdict.NO


def _choices(
    ordered: Sequence[Event[Op]],
    done: int,
    state: State,
    step: Callable[[State, Op, int, int], Iterable[State]],
) -> Iterator[tuple[int, State]]:
    """Yield where one can go from there: first by what was answered, then by what was asked last.

    Why last: what has no answer and explains something was mostly asked shortly before.
    """
    indices, limit = _candidates(ordered, done)
    answered = [each for each in indices if ordered[each].returned is not None]
    unanswered = [each for each in reversed(indices) if ordered[each].returned is None]
    for index in answered + unanswered:
        event = ordered[index]
        for after in step(state, event.op, event.called, limit):
            if event.returned is not None or after != state:
                yield done | 1 << index, after


def _candidates(ordered: Sequence[Event[Op]], done: int) -> tuple[list[int], int]:
    """Return which may be next, and by when it takes effect: the first return of all that are left."""
    limit, found = 1 << 62, []
    # The lowest bit that is not set.
    for index in range((~done & (done + 1)).bit_length() - 1, len(ordered)):
        if done >> index & 1:
            continue
        event = ordered[index]
        if event.called > limit:
            break
        found.append(index)
        limit = limit if event.returned is None else min(limit, event.returned)
    return [index for index in found if ordered[index].called <= limit], limit
