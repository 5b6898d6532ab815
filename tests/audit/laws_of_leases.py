"""Laws of what is held: nobody else has it, and its holder has it (semantics 3.1, 3.3, 3.7, 3.8, 6, 14)."""

from collections.abc import Iterator
from itertools import pairwise

from audit import history as h
from audit.grants import Grant, Grants, is_sure
from audit.timeline import NEVER
from audit.violation import Violation

# What says that a lease is not, or no longer, its holder's.
_GONE = {
    "LEASE_LOST": "is said to be lost",
    "NOT_HOLDER": "is said to be another's",
    "UNKNOWN_ID": "is said never to have been given",
}


def one_holder(grants: Grants) -> Iterator[Violation]:
    """3.1: at most one holder of an item, or of a resource; ids tell who was first."""
    for sort in (h.Lock, h.Reservation):
        for key, held in grants.by_key(sort).items():
            longest: Grant | None = None
            for grant in held:
                if longest is not None and grant.high < longest.ends_least:
                    text = f"{key}: {grant.id} was granted by {grant.high}; {longest.id} was held until"
                    yield Violation(grant.told, "one holder", f"{text} {longest.ends_least} at least")
                if longest is None or grant.ends_least > longest.ends_least:
                    longest = grant


def an_item_rests(grants: Grants) -> Iterator[Violation]:
    """3.7: after a lease that ran out, for lock_delay."""
    for key, held in grants.by_key(h.Lock).items():
        for before, after in pairwise(held):
            if before.ended_by or before.cut < NEVER:
                continue
            until = grants.timeline.elapsed(before.lease_least, _delay(grants, before))
            if after.high < until:
                text = f"{key}: {before.id} ran out at {before.lease_least} at least, and {after.id} was"
                yield Violation(after.told, "an item rests", f"{text} granted by {after.high}")


def _delay(grants: Grants, grant: Grant) -> int:
    assert isinstance(grant.held, h.Lock)
    kind = grant.held.kind
    return min(
        world.kinds[kind].lock_delay_ns if kind in world.kinds else 0 for world in grants.timeline.worlds()
    )


def capacity_holds(grants: Grants) -> Iterator[Violation]:
    """6.2: no more units are given than the pool has, whatever it had at most when it gave them."""
    pools = {grant.held.pool for grant in grants.of(h.Reservation) if isinstance(grant.held, h.Reservation)}
    for pool in sorted(pools - {""}):
        live: list[Grant] = []
        for grant in grants.of(h.Reservation):
            assert isinstance(grant.held, h.Reservation)
            if grant.held.pool != pool or not grant.is_renewable:
                continue
            live = [each for each in live if each.ends_least > grant.high]
            live.append(grant)
            used, most = sum(_units(each) for each in live), _capacity_most(grants, pool, grant)
            if used > most:
                text = f"{pool}: {used} of {most} units were held when {grant.id} was granted"
                yield Violation(grant.told, "capacity holds", text)


def _units(grant: Grant) -> int:
    assert isinstance(grant.held, h.Reservation)
    return grant.held.units


def _capacity_most(grants: Grants, pool: str, grant: Grant) -> int:
    """Return how many the pool had at most: as configured then, or as an operator has said before."""
    configured = [
        max(run.world.pools[pool].capacity, run.world.pools[pool].capacity_max)
        for run in grants.timeline.during(grant.low, grant.high)
        if pool in run.world.pools
    ]
    set_to = [
        each.ask.capacity
        for each in grants.changes
        if isinstance(each.ask, h.SetPool) and each.ask.pool == pool and each.called_at <= grant.high
    ]
    return max([*configured, *set_to], default=NEVER)


def nothing_acknowledged_is_lost(grants: Grants) -> Iterator[Violation]:
    """14.1: who holds something may renew and release it."""
    for operation in grants.history.operations:
        ask, answer, returned = operation.ask, operation.answer, operation.returned_at
        if not isinstance(ask, h.Renew | h.Release) or answer is None or returned is None:
            continue
        for grant in grants.named(ask):
            if operation.worker != grant.worker or grant.told > operation.called_at:
                continue
            if isinstance(answer, h.Failed) and answer.reason in _GONE and is_sure(operation):
                if answer.reason != "LEASE_LOST" or returned < _ends_least(grants, grant, ask):
                    yield _lost(grant, operation, _GONE[answer.reason])
            elif _is_taken_for_released(grant, operation):
                yield _lost(grant, operation, "is said to be released already")


def _ends_least(grants: Grants, grant: Grant, ask: h.Renew | h.Release) -> int:
    """Return before when LEASE_LOST is wrong. A bundle is lost with the first of its leases that is."""
    if ask.of == "bundle" and isinstance(ask, h.Renew):
        return min((each.ends_least for each in grants.named(ask) if each.is_renewable), default=0)
    return grant.ends_least


def _is_taken_for_released(grant: Grant, operation: h.Operation) -> bool:
    """Return whether a release says that there was nothing to release; what refills a bundle doesn't hold."""
    answer, ask = operation.answer, operation.ask
    if not isinstance(answer, h.Released) or not isinstance(ask, h.Release) or not answer.already:
        return False
    is_held = grant.is_renewable or ask.of == "reservation"
    return is_held and (operation.returned_at or 0) < _others(grant, operation)


def _others(grant: Grant, operation: h.Operation) -> int:
    """Return before when nobody else can have released it, and it can't have run out."""
    others = [each.called_at for each in grant.ended_by if each is not operation]
    return min([grant.lease_least, grant.cut, *others])


def _lost(grant: Grant, operation: h.Operation, how: str) -> Violation:
    text = f"{grant.id} {how} ({operation.method}, called at {operation.called_at}), and is held until"
    return Violation(
        operation.returned_at or 0, "no acknowledged grant is lost", f"{text} {grant.ends_least} at least"
    )


def a_lease_lasts_as_asked(grants: Grants) -> Iterator[Violation]:
    """3.3: from its grant, for its time to live, unless it was renewed for less, or is taken."""
    for grant in grants.by_id.values():
        if len(grant.extensions) > 1:
            continue
        told = max(grant.stamps) - grant.held.daemon_granted_at
        asked = grant.extensions[0].ttl
        if told < asked and not getattr(grant.held, "is_preempted", False):
            text = f"{grant.id} was asked for {asked} ns and given for {told}"
            yield Violation(grant.told, "a lease lasts as asked", text)


def a_restart_gives_its_grace(grants: Grants) -> Iterator[Violation]:
    """14.2: what the daemon says is live after its start lasts for the grace; so it does for its holder."""
    for dump in grants.history.of(h.Dumped):
        told = {held.id for held in [*(dump.locks or ()), *(dump.reservations or ())]}
        for sort, known in ((h.Lock, dump.locks), (h.Reservation, dump.reservations)):
            if known is None:
                continue
            for grant in grants.of(sort):
                if grant.told < dump.at < grant.ends_least and grant.id not in told:
                    text = f"{grant.id} is not among what is held at {dump.at}"
                    yield Violation(dump.at, "no acknowledged grant is lost", text)
                if grant.ends_most < dump.at and grant.id in told and grant.given_back_most() < dump.at:
                    text = f"{grant.id} was given back by {grant.given_back_most()}, and is held at {dump.at}"
                    yield Violation(dump.at, "what is given back is free", text)
