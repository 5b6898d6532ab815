"""Each law catches the wrong history planted for it, and no other does; right ones pass."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from audit import history as h
from audit.plant import (
    AHEAD,
    asks_lock,
    broken,
    call,
    daemon,
    end,
    entry,
    failed,
    lock,
    ns,
    permit,
    release,
    report,
    returned,
    start,
    units,
)

RENEW = h.Renew("lock", 1, "a")
BUNDLE = h.Acquire([h.LockClaim("b", "reply")], is_bundle=True, conditions=[h.Condition("a", ns(100))])


def renewed(until: float) -> h.Renewed:
    return h.Renewed([h.Lock("a", "reply", "w", 1, daemon(1), daemon(until))])


def dumped(at: float, *entries: h.Engagement, locks: tuple[int, ...] = ()) -> h.Dumped:
    held = [h.Lock("a", "reply", "w", id_, daemon(1), daemon(99)) for id_ in locks]
    return h.Dumped(ns(at), held, None, list(entries))


def bundle(at: float) -> h.Operation:
    held: list[h.Held] = [h.Lock("b", "reply", "w", 9, daemon(at), daemon(at + 10))]
    return call(at - 0.05, BUNDLE, h.Granted(held, bundle=8))


def arrivals(*times: float) -> list[h.Arrived]:
    return [h.Arrived(ns(at), "post", id_) for id_, at in enumerate(times, start=1)]


WRONG: dict[str, tuple[str, list[h.Entry]]] = {
    "an id twice": ("ids are unique", [lock(5, 1), lock(5, 2, item="b", granted=1)]),
    "an id too high": ("ids are unique", [lock(1 << 53, 1)]),
    "a lower id later": ("ids rise", [start(ahead=None), lock(5, 1), lock(4, 2, item="b", granted=1)]),
    "a lower id after a restart": (
        "ids rise",
        [start(ahead=None), lock(5, 1), end(2), start(3, ahead=None), lock(4, 4, item="b", granted=1)],
    ),
    "time back after a restart": (
        "time does not run back",
        [lock(1, 1), end(2), start(3, ahead=500), lock(2, 4, item="b", granted=-496)],
    ),
    "a stamp from before the question": ("stamps are true", [lock(1, 1), lock(2, 5, item="b", granted=3)]),
    "two grants for one request": (
        "a request has one answer",
        [lock(1, 1, request="r"), lock(2, 3, item="b", request="r", asked=1)],
    ),
    "a grant for a request that is over": (
        "a request has one answer",
        [lock(1, 1, request="r"), release(1, 2), lock(2, 30, request="r", asked=1)],
    ),
    "a request that its own lost answer blocks": (
        "a request has one answer",
        [
            call(1, asks_lock(), request="r"),
            call(3, asks_lock(), h.Refused("HELD", "a", "w"), request="r"),
        ],
    ),
    "a request said to be over that lives": (
        "no acknowledged grant is lost",
        [
            lock(1, 1, request="r"),
            call(3, asks_lock(), failed("FAILED_PRECONDITION", "REQUEST_ENDED"), request="r"),
        ],
    ),
    "two holders": ("one holder", [lock(1, 1, ttl=10), lock(2, 8, worker="v"), release(1, 9)]),
    "two holders of a resource": (
        "one holder",
        [units(1, 1, 0, of="page"), units(2, 5, 0, of="page", worker="v")],
    ),
    "two holders after a renewal": (
        "one holder",
        [lock(1, 1), call(9, RENEW, renewed(19)), lock(2, 15, worker="v"), release(1, 16)],
    ),
    "two holders after a restart without its grace": (
        "one holder",
        [lock(1, 1), end(10), start(10.5), lock(2, 13, worker="v"), release(1, 13.2)],
    ),
    "no rest after a lapse": ("an item rests", [lock(1, 1), lock(2, 14, worker="v")]),
    "a unit too many": ("capacity holds", [units(1, 1), units(2, 2), units(3, 3, worker="v")]),
    "two units too many at once": ("capacity holds", [units(1, 1), units(2, 2, 2)]),
    "a live lease said to be lost": (
        "no acknowledged grant is lost",
        [lock(1, 1), call(3, RENEW, failed("FAILED_PRECONDITION", "LEASE_LOST"))],
    ),
    "a lease lost in a restart": (
        "no acknowledged grant is lost",
        [
            lock(1, 1),
            end(2),
            start(3),
            call(4, h.Release("lock", 1, "a", "SUCCESS"), failed("FAILED_PRECONDITION", "LEASE_LOST")),
        ],
    ),
    "a token never given": (
        "no acknowledged grant is lost",
        [lock(1, 1), call(90, RENEW, failed("NOT_FOUND", "UNKNOWN_ID"))],
    ),
    "units released before they were": (
        "no acknowledged grant is lost",
        [units(1, 1), returned(1, 2, already=True)],
    ),
    "a live lock missing from the dump": ("no acknowledged grant is lost", [lock(1, 1), dumped(3)]),
    "a released lock in the dump": (
        "what is given back is free",
        [lock(1, 1), release(1, 2), dumped(3, entry(1, 2, "FAILURE"), locks=(1,))],
    ),
    "a lease too short": ("a lease lasts as asked", [lock(1, 1, ttl=9)]),
    "a call too many": (
        "windows hold",
        [
            *(permit(1, 1), report(1, 1.5, "NOT_SENT"), permit(2, 2), permit(3, 3)),
            *arrivals(1.2, 2.2, 3.2),
        ],
    ),
    "a permit too many": ("permits fit", [permit(1, 1), permit(2, 2), permit(3, 11.9)]),
    "a window forgotten in a restart": (
        "permits fit",
        [permit(1, 1), permit(2, 2), end(3), start(4), permit(3, 5)],
    ),
    "a refund of what was sent": (
        "permits fit",
        [permit(1, 1), report(1, 1.5), permit(2, 2), report(1, 3, "NOT_SENT"), permit(3, 4)],
    ),
    "a report that refunds twice": (
        "permits fit",
        [
            *(permit(1, 1), permit(2, 1.2), report(1, 1.5, "NOT_SENT"), report(1, 1.6, "NOT_SENT")),
            *(permit(3, 2), permit(4, 2.2)),
        ],
    ),
    "two calls through a shut gate": (
        "one probe at a time",
        [permit(1, 1), report(1, 2, "FAILURE", 429), permit(2, 12.5), permit(3, 12.9)],
    ),
    "a drop too many": (
        "permits fit",
        [units(id_, 1 + id_, of="drop", ttl=1) for id_ in (1, 2, 3)],
    ),
    "an outcome that nobody said": (
        "history agrees with releases",
        [lock(1, 1), release(1, 2, outcome="SUCCESS", says="FAILURE")],
    ),
    "an end that nothing brought": (
        "history agrees with releases",
        [lock(1, 1), call(2, h.ReadItem("a"), h.Item("UNKNOWN", last=entry(1, 1.5)))],
    ),
    "an entry that becomes another": (
        "history does not change",
        [
            *(lock(1, 1), release(1, 2, outcome="UNKNOWN")),
            call(3, h.ReadItem("a"), h.Item("UNKNOWN", last=entry(1, 2.5))),
        ],
    ),
    "two entries for one end": (
        "history does not change",
        [lock(1, 1), release(1, 2), dumped(3, entry(1, 2, "FAILURE"), entry(1, 2, "FAILURE"))],
    ),
    "a lapse that history lost, though a question was answered after it": (
        "a release is in history",
        [lock(1, 1), call(12, h.Other(), h.Done()), end(12.5), start(12.6), dumped(14)],
    ),
    "a release that history lost": ("a release is in history", [lock(1, 1), release(1, 2), dumped(3)]),
    "a release that tells nothing": (
        "a release is in history",
        [lock(1, 1), call(2, h.Release("lock", 1, "a", "SUCCESS"), h.Released())],
    ),
    "a read that does not see a release": (
        "reads see what was released",
        [lock(1, 1), release(1, 2, outcome="SUCCESS"), call(3, h.ReadItem("a"), h.Item("FREE"))],
    ),
    "engaged again too soon": (
        "intervals hold",
        [lock(1, 1, kind="like"), release(1, 2, kind="like", outcome="SUCCESS"), lock(2, 101, kind="like")],
    ),
    "engaged too soon after another kind": (
        "intervals hold",
        [lock(1, 1), release(1, 2, outcome="UNKNOWN"), lock(2, 51, kind="like")],
    ),
    "a bundle on a condition that doesn't hold": (
        "conditions hold",
        [lock(1, 1), release(1, 2, outcome="SUCCESS"), bundle(50)],
    ),
    "overtaken": (
        "first come first served",
        [
            *(lock(1, 1), release(1, 5)),
            lock(3, 7, worker="u", asked=2, places=(2.1,), wait_ns=0),
            *(lock(2, 5, worker="v", asked=3, places=(3.1,), wait_ns=0), release(2, 6, worker="v")),
        ],
    ),
    "aged the wrong way": (
        "first come first served",
        [
            *(lock(1, 1, ttl=200), release(1, 100)),
            lock(3, 102, worker="u", asked=2, places=(2.1,), wait_ns=ns(200), priority="LOW"),
            lock(2, 100, worker="v", asked=90, places=(90.1,), wait_ns=ns(200)),
            release(2, 101, worker="v"),
        ],
    ),
    "forgotten": (
        "nobody is forgotten",
        [
            *(lock(1, 1), release(1, 5)),
            call(2, asks_lock(wait_ns=ns(6)), h.Refused("WAIT_TIMEOUT"), by=8, places=(2.1,), worker="v"),
        ],
    ),
    "never answered": (
        "everything ends",
        [h.Calmed(ns(10), ns(5)), call(11, h.ReadItem("a")), h.Finished(ns(60))],
    ),
    "an undocumented reason": ("answers are documented", [call(1, RENEW, failed("NOT_FOUND", "GONE"))]),
    "a reason under another status": (
        "answers are documented",
        [call(1, RENEW, failed("NOT_FOUND", "LEASE_LOST"))],
    ),
    "a bug": ("answers are documented", [call(1, RENEW, failed("INTERNAL", "INTERNAL"))]),
}

RIGHT: dict[str, list[h.Entry]] = {
    "nothing": [],
    "a request that another of its worker's blocks": [
        call(1, asks_lock(), request="r"),
        call(3, asks_lock(), h.Refused("HELD", "a", "w"), request="s"),
    ],
    "the same grant again": [lock(1, 1, request="r"), lock(1, 3, request="r", asked=2.9, granted=1)],
    "a new grant once it is forgotten": [
        *(lock(1, 1, request="r"), release(1, 2)),
        lock(2, 70, request="r", asked=69),
    ],
    "the next holder at the instant of the release": [lock(1, 1), release(1, 5), lock(2, 5, worker="v")],
    "the next holder after a release without an answer": [
        *(lock(1, 1), call(4, h.Release("lock", 1, "a", "SUCCESS"))),
        lock(2, 8, worker="v"),
    ],
    "the next holder after a release that failed for want of a disk": [
        *(lock(1, 1), call(4, h.Release("lock", 1, "a", "SUCCESS"), failed("UNAVAILABLE", "STORE_FAILED"))),
        lock(2, 8, worker="v"),
    ],
    "the next holder once a renewal for less has run out": [
        *(lock(1, 1), call(2, h.Renew("lock", 1, "a", ns(1)), renewed(3))),
        lock(2, 9, worker="v"),
    ],
    "the next holder after the rest": [lock(1, 1), lock(2, 16, worker="v")],
    "the next holder after the grace of a restart": [
        *(lock(1, 1), end(10), start(12), lock(2, 20, worker="v")),
    ],
    "a forced release": [
        *(lock(1, 1), call(2, h.Force(1), h.Done()), lock(2, 2.5, worker="v")),
        call(3, RENEW, failed("FAILED_PRECONDITION", "LEASE_LOST")),
    ],
    "a goodbye": [lock(1, 1), call(2, h.Goodbye(7), h.Closed(1)), lock(2, 2.5, worker="v")],
    "capacity that comes back": [*(units(1, 1), units(2, 2), returned(1, 3)), units(3, 3, worker="v")],
    "capacity that an operator raised": [
        *(units(1, 1), units(2, 2), call(2.5, h.SetPool("small", 3), h.Done())),
        units(3, 3, worker="v"),
    ],
    "a lease that ran out": [
        *(lock(1, 1), call(12, RENEW, failed("FAILED_PRECONDITION", "LEASE_LOST"))),
        dumped(13, entry(1, 11)),
    ],
    "a lease that ran out, and lives again after a crash that came before its end was stored": [
        *(lock(1, 1), end(12.5), start(12.6), call(13, h.Other(), h.Done()), dumped(14)),
    ],
    "room after a window": [permit(1, 1), permit(2, 2), permit(3, 12.2)],
    "room after a report": [permit(1, 1), report(1, 1.1), permit(2, 2), permit(3, 11.2)],
    "one probe after the other": [
        *(permit(1, 1), report(1, 2, "FAILURE", 429), permit(2, 12.5), permit(3, 13.6)),
    ],
    "a gate that a probe has opened": [
        *(permit(1, 1), report(1, 2, "FAILURE", 429), permit(2, 12.5), report(2, 12.6), permit(3, 12.9)),
    ],
    "room after a refund": [permit(1, 1), report(1, 1.5, "NOT_SENT"), permit(2, 2), permit(3, 3)],
    "room after an operator's word": [
        *(permit(1, 1), permit(2, 2), call(2.5, h.SetLimit("post", {ns(10): 3}), h.Done())),
        *(permit(3, 3), *arrivals(1.5, 2.5, 3.5)),
    ],
    "a call that came too late": [permit(1, 1), permit(2, 2), permit(3, 13), *arrivals(1.5, 12.5, 13.5)],
    "a clock set ahead while it was down": [
        *(permit(1, 1), permit(2, 2), end(3), start(4, ahead=AHEAD + 60), permit(3, 5, granted=65)),
        *arrivals(1.5, 2.5, 5.5),
    ],
    "engaged again after the interval": [
        *(lock(1, 1, kind="like"), release(1, 2, kind="like", outcome="SUCCESS")),
        lock(2, 102, kind="like"),
    ],
    "engaged again after a failure": [
        *(lock(1, 1, kind="like"), release(1, 2, kind="like")),
        lock(2, 3, kind="like"),
    ],
    "a bundle on a condition that holds": [lock(1, 1), release(1, 2), bundle(50)],
    "a read that sees what was released": [
        *(lock(1, 1), release(1, 2, outcome="SUCCESS")),
        call(3, h.ReadItem("a"), h.Item("DONE", last=entry(1, 2, "SUCCESS"))),
    ],
    "one that waited long goes before a fresh one of a higher class": [
        *(lock(1, 1, ttl=200), release(1, 100)),
        lock(2, 100, worker="v", asked=2, places=(2.1,), wait_ns=ns(200), priority="LOW"),
        *(release(2, 101, worker="v"),),
        lock(3, 101, worker="u", asked=90, places=(90.1,), wait_ns=ns(200)),
    ],
    "a higher class goes before one that has not waited long": [
        *(lock(1, 1), release(1, 5)),
        lock(3, 7, worker="u", asked=2, places=(2.1,), wait_ns=0),
        lock(2, 5, worker="v", asked=3, places=(3.1,), wait_ns=0, priority="HIGH"),
        release(2, 6, worker="v"),
    ],
    "a wait that times out while the item is held": [
        lock(1, 1),
        call(2, asks_lock(wait_ns=ns(6)), h.Refused("WAIT_TIMEOUT"), by=8, places=(2.1,), worker="v"),
    ],
    "a wait that may be beaten by one without an answer": [
        *(lock(1, 1), release(1, 5), call(4, asks_lock(wait_ns=0), worker="u")),
        call(2, asks_lock(wait_ns=ns(6)), h.Refused("WAIT_TIMEOUT"), by=8, places=(2.1,), worker="v"),
    ],
    "answered in the calm": [
        h.Calmed(ns(10), ns(5)),
        call(11, asks_lock(wait_ns=ns(40)), h.Refused("HELD"), by=52),
        h.Finished(ns(60)),
    ],
    "what gRPC says by itself": [call(1, RENEW, failed("UNAVAILABLE"))],
}


def told(entries: list[h.Entry]) -> list[h.Entry]:
    return (
        entries
        if any(isinstance(each, h.Started) and each.at == 0 for each in entries)
        else [start(), *entries]
    )


@pytest.mark.parametrize(("law", "entries"), WRONG.values(), ids=WRONG)
def test_a_wrong_history_is_caught_by_its_law_and_no_other(law: str, entries: list[h.Entry]) -> None:
    # Of an item, no order explains what a sharper law has found, too.
    assert broken(*told(entries)) - {"items are registers"} == {law}


@pytest.mark.parametrize("entries", RIGHT.values(), ids=RIGHT)
def test_a_right_history_passes(entries: list[h.Entry]) -> None:
    assert broken(*told(entries)) == set()


def test_every_law_has_its_wrong_history() -> None:
    laws = {law for law, _ in WRONG.values()}
    source = "".join(path.read_text() for path in sorted(Path(h.__file__).parent.glob("laws_of_*.py")))
    told_by_source = set(re.findall(r'Violation\((?:.|\n)*?"([a-z][a-z ]+)"', source)) | {"ids rise"}
    assert told_by_source <= laws


def test_a_saved_history_is_judged_again(tmp_path: Path) -> None:
    law, entries = WRONG["two holders"]
    path = tmp_path / "history.jsonl"
    h.History(told(entries)).save(path)
    command = [sys.executable, "-m", "audit", path]
    environment = os.environ | {"PYTHONPATH": str(Path(h.__file__).parents[1])}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert law in done.stdout
