"""Histories written by hand, for the judges' own tests.

Rule: instants are in seconds; the daemon's clock is 1000 s ahead.
"""

from typing import Any

from audit import history as h
from audit.judge import audit

AHEAD = 1000


def ns(seconds: float) -> int:
    """Return ns."""
    return round(seconds * h.SECOND)


def daemon(seconds: float) -> int:
    """Return what the daemon's clock shows then."""
    return ns(seconds + AHEAD)


WORLD = h.World(
    kinds={
        "reply": h.Kind(ttl_ns=ns(10), lock_delay_ns=ns(5)),
        "like": h.Kind(
            ttl_ns=ns(10), lock_delay_ns=0, min_interval_ns=ns(100), min_interval_after={"reply": ns(50)}
        ),
    },
    pools={"small": h.Pool(capacity=2), "tank": h.Pool(windows={ns(10): 2}, use_within_ns=ns(1))},
    types={
        "slot": h.Type(ttl_ns=ns(10), pool="small"),
        "page": h.Type(ttl_ns=ns(10)),
        "drop": h.Type(ttl_ns=ns(10), pools={"x": "tank"}),
    },
    limits={"post": h.Limit(windows={ns(10): 2}, use_within_ns=ns(1), forecast_headroom=0.0)},
    recovery=h.Recovery(grace_ns=ns(3)),
    requests=h.Requests(memory_ns=ns(60)),
)


def start(at: float = 0, *, world: h.World = WORLD, ahead: float | None = AHEAD) -> h.Started:
    """The daemon starts."""
    return h.Started(ns(at), world, None if ahead is None else ns(ahead))


def end(at: float) -> h.Ended:
    """It dies."""
    return h.Ended(ns(at))


def call(
    at: float,
    ask: h.Ask,
    answer: h.Answer | None = None,
    *,
    by: float | None = None,
    worker: str = "w",
    request: str = "",
    places: tuple[float, ...] = (),
    method: str = "",
) -> h.Operation:
    """One call and its answer, a tenth of a second later unless it is said."""
    told = at + 0.1 if by is None else by
    return h.Operation(
        ns(at),
        method or type(ask).__name__,
        ask,
        worker,
        request,
        [h.Place(ns(each), 1) for each in places],
        None if answer is None else ns(told),
        answer,
    )


def asks_lock(item: str = "a", kind: str = "reply", **values: Any) -> h.Acquire:
    """What a request for a lock asks."""
    return h.Acquire([h.LockClaim(item, kind)], **values)


def lock(
    id_: int,
    at: float,
    *,
    item: str = "a",
    kind: str = "reply",
    worker: str = "w",
    ttl: float = 10,
    asked: float | None = None,
    request: str = "",
    places: tuple[float, ...] = (),
    granted: float | None = None,
    **values: Any,
) -> h.Operation:
    """A lock is granted at that time, halfway between the question and the answer."""
    stamp = at if granted is None else granted
    held = h.Lock(item, kind, worker, id_, daemon(stamp), daemon(stamp + ttl))
    ask = asks_lock(item, kind, **values)
    since = at - 0.05 if asked is None else asked
    return call(since, ask, h.Granted([held]), by=at + 0.05, worker=worker, request=request, places=places)


def units(
    id_: int, at: float, count: int = 1, *, of: str = "slot", worker: str = "w", ttl: float = 10
) -> h.Operation:
    """Units are reserved."""
    resource, pool = {"slot": ("", "small"), "page": ("p", ""), "drop": ("x", "tank")}[of]
    held = h.Reservation(of, worker, id_, daemon(at), daemon(at + ttl), resource, pool, count)
    return call(at - 0.05, h.Acquire([h.UnitsClaim(of, resource, count)]), h.Granted([held]), worker=worker)


def permit(id_: int, at: float, *, granted: float | None = None, worker: str = "w") -> h.Operation:
    """A permit is granted, to be used within a second."""
    stamp, count = at if granted is None else granted, 1
    held = h.Permit("post", count, worker, id_, daemon(stamp), daemon(stamp + 1))
    return call(at - 0.05, h.Acquire([h.PermitClaim("post", count)]), h.Granted([held]), worker=worker)


def report(id_: int, at: float, result: str = "SUCCESS", status: int = 0) -> h.Operation:
    """A permit is reported on."""
    return call(at - 0.05, h.Report(h.Usage("post", id_, result, status)), h.Settled())


def release(
    id_: int,
    at: float,
    *,
    item: str = "a",
    kind: str = "reply",
    worker: str = "w",
    outcome: str = "FAILURE",
    says: str = "",
) -> h.Operation:
    """A lock is given back; history `says` another outcome, maybe."""
    entry = h.Engagement(item, kind, worker, says or outcome, daemon(at), id_)
    return call(at - 0.05, h.Release("lock", id_, item, outcome), h.Released([entry]), worker=worker)


def returned(id_: int, at: float, *, worker: str = "w", already: bool = False) -> h.Operation:
    """A reservation is given back."""
    return call(at - 0.05, h.Release("reservation", id_), h.Released(already=already), worker=worker)


def entry(
    id_: int, at: float, outcome: str = "UNKNOWN", *, item: str = "a", kind: str = "reply", worker: str = "w"
) -> h.Engagement:
    """An entry of the daemon's history."""
    return h.Engagement(item, kind, worker, outcome, daemon(at), id_)


def failed(code: str, reason: str = "") -> h.Failed:
    """A status."""
    return h.Failed(code, reason)


def broken(*entries: h.Entry) -> set[str]:
    """Return which laws the judge finds broken."""
    return {violation.law for violation in audit(h.History(entries))}
