"""The search itself, on registers whose histories are known; then items."""

import random
from collections.abc import Iterator

import pytest

from audit import history as h
from audit.grants import Grants
from audit.items import verdicts
from audit.linear import Event, Verdict, check
from audit.plant import asks_lock, call, end, failed, lock, ns, release, start
from audit.timeline import Timeline

Register = tuple[str, int]


def register(state: int, op: Register, _called: int, _limit: int) -> Iterator[int]:
    """A register of numbers: `w` writes one, `r` reads it."""
    name, value = op
    if name == "w":
        yield value
    elif value == state:
        yield state


def history(*rows: tuple[int, int | None, str, int]) -> list[Event[Register]]:
    return [Event(called, returned, (name, value)) for called, returned, name, value in rows]


# The examples of Herlihy and Wing's paper and of its readers, among others.
YES = {
    "nothing": history(),
    "one after the other": history((0, 1, "w", 1), (2, 3, "r", 1)),
    "a read that overlaps a write sees it": history((0, 10, "w", 1), (2, 3, "r", 1)),
    "or does not": history((0, 10, "w", 1), (2, 3, "r", 0)),
    "and one that overlaps both": history((0, 10, "w", 1), (1, 9, "r", 0), (2, 8, "r", 1)),
    "writes in either order": history((0, 10, "w", 1), (1, 9, "w", 2), (11, 12, "r", 1)),
    "a write without an answer that was done": history((0, None, "w", 1), (5, 6, "r", 0), (7, 8, "r", 1)),
    "and one that never was": history((0, None, "w", 1), (5, 6, "r", 0)),
}
NO = {
    "a value that nobody wrote": history((0, 1, "w", 1), (2, 3, "r", 2)),
    "a stale read": history((0, 1, "w", 1), (2, 3, "w", 2), (4, 5, "r", 1)),
    "new, then old": history((0, 10, "w", 1), (2, 3, "r", 1), (4, 5, "r", 0)),
    "two readers who disagree": history(
        (0, 20, "w", 1), (0, 20, "w", 2), (2, 3, "r", 1), (4, 5, "r", 2), (6, 7, "r", 1)
    ),
    "a write without an answer that was undone": history((0, None, "w", 1), (5, 6, "r", 1), (7, 8, "r", 0)),
}


@pytest.mark.parametrize("events", YES.values(), ids=YES)
def test_linearizable(events: list[Event[Register]]) -> None:
    assert check(events, 0, register) is Verdict.YES


@pytest.mark.parametrize("events", NO.values(), ids=NO)
def test_not_linearizable(events: list[Event[Register]]) -> None:
    assert check(events, 0, register) is Verdict.NO


def test_a_search_that_is_too_long_is_undecided() -> None:
    many = history(*((0, 100, "w", value) for value in range(12)), (101, 102, "r", 99))
    assert check(many, 0, register, budget=100) is Verdict.UNDECIDED


def really_happened(made: random.Random) -> list[Event[Register]]:
    value, events = 0, []
    for at in range(0, 80, 4):
        called, returned = at - made.randrange(6), at + made.randrange(6)
        if made.random() < 0.5:
            value = at
            is_answered = made.random() < 0.9
            events.append(Event(called, returned if is_answered else None, ("w", value)))
        else:
            events.append(Event(called, returned, ("r", value)))
    return events


def test_what_a_register_really_did_is_linearizable_and_with_a_wrong_answer_it_is_not() -> None:
    for seed in range(50):
        events = really_happened(random.Random(seed))
        assert check(events, 0, register) is Verdict.YES, seed
        wrong = [*events, Event(500, 501, ("r", -1))]
        assert check(wrong, 0, register) is Verdict.NO, seed


# -- items ---------------------------------------------------------------------------------------------------


def verdict(*entries: h.Entry) -> Verdict:
    told = h.History([start(), *entries])
    found = verdicts(Grants(told, Timeline(told)))
    return found["item", "a"]


def renew(at: float, answer: h.Answer | None) -> h.Operation:
    return call(at, h.Renew("lock", 1, "a"), answer)


SEEN = h.Item("IN_PROGRESS", lock=h.Lock("a", "reply", "w", 1, 0, 0))
SEEN_OTHER = h.Item("IN_PROGRESS", lock=h.Lock("a", "reply", "w", 3, 0, 0))
RENEWED = h.Renewed([h.Lock("a", "reply", "w", 1, 0, 0)])
LOST = failed("FAILED_PRECONDITION", "LEASE_LOST")
READ = h.ReadItem("a")
HELD = h.Refused("HELD", "a")

ITEM_YES: dict[str, list[h.Entry]] = {
    "taken in turn": [lock(1, 1), release(1, 3), lock(2, 3, worker="v")],
    "run out, rested, taken": [lock(1, 1), lock(2, 16.1, worker="v")],
    "seen held, then free": [
        *(lock(1, 1), call(2, READ, SEEN), release(1, 3), call(4, READ, h.Item("FREE"))),
    ],
    "refused while somebody without an answer may hold it": [
        *(call(1, asks_lock()), call(2, asks_lock(), HELD, worker="v")),
    ],
    "taken after a release without an answer": [
        *(lock(1, 1), call(2, h.Release("lock", 1, "a", "SUCCESS")), call(3, READ, SEEN)),
        lock(2, 5, worker="v"),
    ],
    "taken by an attempt without an answer, told by the next": [
        *(call(1, asks_lock(), request="r"), call(2, asks_lock(), HELD, worker="v")),
        lock(1, 3, request="r", granted=1),
    ],
    "taken without an answer, its token told by a read": [
        *(call(1, asks_lock(wait_ns=0)), call(2, READ, SEEN), lock(2, 16, worker="v")),
    ],
    "kept by a renewal": [lock(1, 1), renew(9, RENEWED), call(15, READ, SEEN)],
    "kept by a restart": [lock(1, 1), end(10), start(20), call(22, READ, SEEN), lock(2, 28.1, worker="v")],
    "lost when it has run out": [lock(1, 1), renew(12, LOST)],
}
ITEM_NO: dict[str, list[h.Entry]] = {
    "taken from under its holder": [lock(1, 1), lock(2, 5, worker="v"), call(6, READ, SEEN)],
    "taken before it has rested": [lock(1, 1), lock(2, 12, worker="v")],
    "free while it is held": [lock(1, 1), call(2, READ, h.Item("FREE"))],
    "held when it was given back": [lock(1, 1), release(1, 3), call(4, READ, SEEN)],
    "refused as held, and nobody can have it": [lock(1, 1), release(1, 3), call(4, asks_lock(), HELD)],
    "lost while it runs": [lock(1, 1), renew(5, LOST)],
    "an older token later": [lock(2, 1), release(2, 2), lock(1, 3)],
    "kept after it was given back": [lock(1, 1), release(1, 2), renew(3, RENEWED)],
    "two tokens read of one that has no answer": [
        *(call(1, asks_lock(wait_ns=0)), call(2, READ, SEEN), call(3, READ, SEEN_OTHER)),
    ],
    "a token read that nobody asked for": [call(2, READ, SEEN)],
    "a token read that is older than one told": [
        *(lock(2, 1), release(2, 2), call(3, asks_lock(wait_ns=0), worker="v"), call(4, READ, SEEN)),
    ],
    "taken under an older token than the one read": [
        *(call(1, asks_lock(wait_ns=0)), call(2, READ, SEEN_OTHER), lock(2, 16, worker="v")),
    ],
    "taken after a renewal": [lock(1, 1), renew(9, RENEWED), lock(2, 17, worker="v")],
}


@pytest.mark.parametrize("entries", ITEM_YES.values(), ids=ITEM_YES)
def test_an_items_history_is_linearizable(entries: list[h.Entry]) -> None:
    assert verdict(*entries) is Verdict.YES


@pytest.mark.parametrize("entries", ITEM_NO.values(), ids=ITEM_NO)
def test_an_items_history_is_not(entries: list[h.Entry]) -> None:
    assert verdict(*entries) is Verdict.NO


def test_a_long_history_is_decided() -> None:
    entries: list[h.Entry] = [start()]
    for index in range(1, 1001):
        entries += [
            lock(index, index, worker=f"w{index % 7}"),
            release(index, index + 0.5, worker=f"w{index % 7}"),
        ]
    told = h.History(entries)
    assert set(verdicts(Grants(told, Timeline(told))).values()) == {Verdict.YES}


def test_of_a_bundle_any_claim_may_escalate_by_time_and_only_its_own_rule_at_once() -> None:
    kinds = {
        "slow": h.Kind(ttl_ns=ns(10), lock_delay_ns=0, escalate_after_ns=ns(1)),
        "asks": h.Kind(ttl_ns=ns(10), lock_delay_ns=0, on_conflict="escalate"),
    }
    world = h.World(kinds=kinds, types={"page": h.Type(ttl_ns=ns(10))})
    told = h.History([start(world=world)])
    grants, page = Grants(told, Timeline(told)), h.UnitsClaim("page", "p")
    assert grants.escalates(h.Acquire([page, h.LockClaim("a", "slow")]), page)
    assert not grants.escalates(h.Acquire([page, h.LockClaim("a", "asks")]), page)
    assert not grants.escalates(h.Acquire([page]), page)
