"""Laws of waiting: who goes first, that nobody is forgotten, and that all ends (semantics 4).

Rule: only what is certain is judged. A waiter counts from the first place it was told; one whose stream broke
in between is away for an unknown time, and one that is escalated may be put first.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from audit import history as h
from audit.grants import Grant, Grants, Key, answered_at, is_sure, may_have_worked
from audit.timeline import NEVER
from audit.violation import Violation


@dataclass(frozen=True)
class Rank:
    """Within which bounds the key of a request lies: smaller goes first."""

    least: int
    most: int


@dataclass(frozen=True)
class Waiter:
    """One that surely waited from `since` to `until`, on one stream, in one run."""

    operation: h.Operation
    since: int
    until: int
    rank: Rank
    granted: Grant | None


def first_come_first_served(grants: Grants) -> Iterator[Violation]:
    """4.2, 4.3: nobody is granted what one that surely goes first still waits for, and could use."""
    takers = _takers(grants)
    for queue, waiters in _queues(grants).items():
        for grant in takers.get(queue, ()):
            since = _enqueued_least(grants, grant)
            if since is None:
                continue
            rank = _rank(grants, grant.ask, since, grant.high)
            for waiter in waiters:
                if waiter.operation.request_id and waiter.operation.request_id == grant.request_id:
                    continue
                if _is_passed(waiter, grant) and waiter.rank.most < rank.least:
                    who = waiter.granted.id if waiter.granted else waiter.operation.called_at
                    text = f"{queue}: {grant.id} was granted before {who}, which has waited since"
                    yield Violation(grant.told, "first come first served", f"{text} {waiter.since}")


def _is_passed(waiter: Waiter, grant: Grant) -> bool:
    if grant.low < waiter.since:
        return False
    if waiter.granted is not None:
        return grant.id < waiter.granted.id
    return grant.high < waiter.until


def _queues(grants: Grants) -> dict[Key, list[Waiter]]:
    """Return those who surely waited, by what they waited for, where nobody may have been put first."""
    found: dict[Key, list[Waiter]] = defaultdict(list)
    escalated: set[Key] = set()
    for operation in grants.history.operations:
        ask = operation.ask
        if not isinstance(ask, h.Acquire) or (queue := _queue(grants, ask)) is None:
            continue
        if grants.escalates(ask, ask.claims[0]):
            escalated.add(queue)
        if operation.places and (waiter := _waiter(grants, operation, ask)):
            found[queue].append(waiter)
    return {queue: waiters for queue, waiters in found.items() if queue not in escalated}


def _waiter(
    grants: Grants,
    operation: h.Operation,
    ask: h.Acquire,
) -> Waiter | None:
    since, returned = operation.places[0].at, operation.returned_at
    if returned is None:
        return None
    runs = grants.timeline.during(operation.called_at, returned)
    if len(runs) != 1:
        return None
    enqueued = min(since, returned)
    rank = _rank(grants, ask, enqueued, enqueued)
    if isinstance(operation.answer, h.Granted):
        granted = grants.by_id.get(min((held.id for held in operation.answer.held), default=0))
        return Waiter(operation, since, granted.low, rank, granted) if granted else None
    if isinstance(operation.answer, h.Refused) and operation.answer.reason == "WAIT_TIMEOUT":
        return Waiter(operation, since, operation.called_at + _patience(ask, runs[0].world), rank, None)
    return None


def _patience(ask: h.Acquire, world: h.World) -> int:
    return ask.wait_ns or world.waits.default_timeout_ns


def _queue(grants: Grants, ask: h.Acquire) -> Key | None:
    """Return where a request waits, if it waits in one place and nothing but its key says when it is next."""
    if ask.is_bundle or ask.booking or len(ask.claims) != 1:
        return None
    claim, worlds = ask.claims[0], grants.timeline.worlds()
    if isinstance(claim, h.LockClaim):
        if len({world.locks.exclusive for world in worlds}) > 1:
            return None
        return grants.lock_key(claim.item, claim.kind)
    if isinstance(claim, h.PermitClaim):
        plain = all(_is_plain_limit(world.limits.get(claim.endpoint)) for world in worlds)
        return ("endpoint", claim.endpoint, *_class(plain=plain, priority=ask.priority))
    return _units_queue(grants, ask, claim, worlds)


def _class(*, plain: bool, priority: str) -> tuple[str, ...]:
    """Where a class may have to leave room, only its own kind is judged with it."""
    return () if plain else (priority,)


def _is_plain_limit(limit: h.Limit | None) -> bool:
    return bool(
        limit
        and limit.allocation == "priority"
        and not limit.headroom
        and not limit.forecast_headroom
        and limit.pace == "asap"
    )


def _units_queue(grants: Grants, ask: h.Acquire, claim: h.UnitsClaim, worlds: list[h.World]) -> Key | None:
    pools = {_pool_of(world, claim) for world in worlds}
    if len(pools) != 1:
        return None
    pool = pools.pop()
    if not pool:
        return ("resource", claim.of, claim.resource) if claim.resource else None
    if claim.resource and grants.is_exclusive(claim.of, claim.resource):
        return None
    rules = [world.pools.get(pool) for world in worlds]
    if not all(rule and rule.overflow == "queue" and not rule.capacity_max for rule in rules):
        return None
    if any(rule and rule.allocation != "priority" for rule in rules):
        return None
    plain = not any(rule and rule.headroom for rule in rules)
    return ("pool", pool, *_class(plain=plain, priority=ask.priority))


def _pool_of(world: h.World, claim: h.UnitsClaim) -> str:
    rule = world.types.get(claim.of)
    if rule is None:
        return ""
    return rule.pools.get(claim.resource, "") if rule.pools else rule.pool


def _takers(grants: Grants) -> dict[Key, list[Grant]]:
    """Return whatever was granted, by where it would have waited, in order."""
    found: dict[Key, list[Grant]] = defaultdict(list)
    for grant in sorted(grants.by_id.values(), key=lambda each: each.id):
        queue = _queue(grants, grant.ask)
        if queue is not None and not _is_fair(grants, queue):
            found[queue].append(grant)
    return found


def _is_fair(grants: Grants, queue: Key) -> bool:
    if queue[0] != "endpoint":
        return False
    rules = [world.limits.get(queue[1]) for world in grants.timeline.worlds()]
    return any(rule is None or rule.allocation != "priority" for rule in rules)


def _enqueued_least(grants: Grants, grant: Grant) -> int | None:
    """Return before when it can't have begun to wait; None: that may have been in another run's time."""
    return grant.asked if len(grants.timeline.during(grant.asked, grant.told)) == 1 else None


def _rank(grants: Grants, ask: h.Acquire, least: int, most: int) -> Rank:
    """Return the key by 4.2; where several head starts were in force, the widest."""
    starts = [_head_start(world.aging, ask) for world in grants.timeline.worlds()]
    # A rounded head start may be off by a little.
    return Rank(least - max(starts) - 1000, most - min(starts) + 1000)


def _head_start(aging: h.Aging, ask: h.Acquire) -> int:
    boosts = {"LOW": 0, "MEDIUM": aging.medium_ns, "HIGH": aging.high_ns, "CRITICAL": aging.critical_ns}
    return boosts.get(ask.priority, 0) + int(ask.quality * aging.quality_ns)


# -- nobody is forgotten -------------------------------------------------------------------------------------


def nobody_is_forgotten(grants: Grants) -> Iterator[Violation]:
    """4.4: nobody times out waiting for an item, or resource, that nobody can have had by then."""
    holders = {**grants.by_key(h.Lock), **grants.by_key(h.Reservation)}
    unsure = _unsure(grants)
    for queue, waiters in _queues(grants).items():
        if queue[0] not in {"item", "resource"}:
            continue
        for waiter in waiters:
            if waiter.granted is not None:
                continue
            until = waiter.until
            if any(called <= until for called in unsure.get(queue, ())):
                continue
            held = [each for each in holders.get(queue, ()) if each.low <= until]
            free = max((_free_most(grants, each) for each in held), default=0)
            if max(free, waiter.since) < until:
                text = f"{queue}: free since {free}, and {waiter.operation.worker} has waited in vain from"
                yield Violation(
                    waiter.operation.returned_at or NEVER,
                    "nobody is forgotten",
                    f"{text} {waiter.since} to {until}",
                )


def _free_most(grants: Grants, grant: Grant) -> int:
    """Return by when the next one could surely have had it."""
    if grant.given_back_most() <= grant.ends_most and grant.given_back_most() < grant.lease_least:
        return grant.ends_most
    rest = 0
    if isinstance(grant.held, h.Lock):
        kind = grant.held.kind
        rest = max(
            (w.kinds[kind].lock_delay_ns for w in grants.timeline.worlds() if kind in w.kinds), default=0
        )
    return NEVER if grant.ends_most >= NEVER else grants.timeline.passed(grant.ends_most, rest)


def _unsure(grants: Grants) -> dict[Key, list[int]]:
    """Return when something was asked for that may be held without anybody's having been told."""
    found: dict[Key, list[int]] = defaultdict(list)
    for operation in grants.history.operations:
        if isinstance(operation.ask, h.Acquire) and not is_sure(operation) and may_have_worked(operation):
            for claim in operation.ask.claims:
                key = grants.claim_key(claim)
                if key is not None:
                    found[key].append(operation.called_at)
    return found


# -- all ends ------------------------------------------------------------------------------------------------


def everything_ends(grants: Grants) -> Iterator[Violation]:
    """4.8: once nothing goes wrong any more, whatever is asked is answered, a wait by the end of its time."""
    calm: h.Calmed | None = next(iter(grants.history.of(h.Calmed)), None)
    finished = max((each.at for each in grants.history.of(h.Finished)), default=0)
    if calm is None:
        return
    for operation in grants.history.operations:
        if operation.called_at < calm.at:
            continue
        due = operation.called_at + _wait(grants, operation.ask) + calm.patience_ns
        if min(answered_at(operation), finished) > due:
            text = f"{operation.method} of {operation.worker}, called at {operation.called_at}"
            yield Violation(due, "everything ends", f"{text}, has no answer by {due}")


def _wait(grants: Grants, ask: h.Ask) -> int:
    if not isinstance(ask, h.Acquire) or ask.wait_ns is None:
        return 0
    return max((_patience(ask, world) for world in grants.timeline.worlds()), default=0)
