"""What was surely granted, and from when until when it was surely, or possibly, held.

Owns: when a lease begins and ends, as far as clients can know (semantics 3, 11.7-9, 12.6, 13, 14.2).
Rules: a grant begins within the call that got it; it ends no earlier than `ends_least`, whatever became of
calls without an answer, and has ended by `ends_most`. An answer of an error that its reason explains has
changed nothing; any other may have been carried out all the same.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from audit import history as h
from audit.timeline import NEVER, Timeline

# Whose command may be on disk although it was answered by an error: the commit's fate is not known.
_UNSURE: Final = frozenset({"", "STORE_FAILED", "INTERNAL"})

Key: TypeAlias = tuple[str, ...]


def is_sure(operation: h.Operation) -> bool:
    """Return whether it is known what became of it."""
    answer = operation.answer
    return answer is not None and not (isinstance(answer, h.Failed) and answer.reason in _UNSURE)


def may_have_worked(operation: h.Operation) -> bool:
    """Return whether it may have changed something."""
    return not is_sure(operation) or not isinstance(operation.answer, h.Failed | h.Refused)


def answered_at(operation: h.Operation) -> int:
    """Return by when it was surely carried out, if ever."""
    return NEVER if operation.returned_at is None or not is_sure(operation) else operation.returned_at


def _usages(ask: h.Ask) -> list[h.Usage]:
    if isinstance(ask, h.Report):
        return [ask.usage]
    return ask.usages if isinstance(ask, h.Release) else []


def _rule(world: h.World, claim: h.Claim) -> h.Kind | h.Type | None:
    if isinstance(claim, h.PermitClaim):
        return None
    return world.kinds.get(claim.kind) if isinstance(claim, h.LockClaim) else world.types.get(claim.of)


@dataclass
class Extension:
    """Something that lets a lease run for `ttl` from then on: its grant, a renewal, a keepalive."""

    called: int
    returned: int
    ttl: int
    ttl_most: int
    is_sure: bool


@dataclass
class Grant:
    """One thing granted, of which a client was told.

    `low`, `high`: when it was granted. `told`: when a client first knew. `ended_by`: what may have ended it.
    `cut`: before which nothing can have taken it away on somebody else's behalf.
    """

    held: h.Held
    worker: str
    request_id: str
    low: int
    high: int
    asked: int
    told: int
    ask: h.Acquire
    bundle: int = 0
    extensions: list[Extension] = field(default_factory=list)
    ended_by: list[h.Operation] = field(default_factory=list)
    cut: int = NEVER
    is_renewable: bool = True
    stamps: list[int] = field(default_factory=list)
    lease_least: int = 0
    lease_most: int = NEVER
    ends_least: int = 0
    ends_most: int = NEVER

    @property
    def id(self) -> int:
        """Its token or id."""
        return self.held.id

    def given_back_most(self) -> int:
        """Return by when it was surely given back; NEVER if that isn't known.

        A goodbye gives back what was taken in its session only, and a bundle not what refills.
        """
        surely = [each for each in self.ended_by if isinstance(each.ask, h.Release | h.Force)]
        if not self.is_renewable:
            surely = [each for each in surely if isinstance(each.ask, h.Release) and each.ask.of != "bundle"]
        return min((answered_at(each) for each in surely), default=NEVER)


class Grants:
    """All of them, by id."""

    def __init__(self, history: h.History, timeline: Timeline) -> None:
        self.history = history
        self.timeline = timeline
        self.by_id: dict[int, Grant] = {}
        self.changes = [o for o in history.operations if isinstance(o.ask, h.SetPool | h.SetLimit)]
        # Every report on a permit, in the order in which they were sent.
        self.reports: dict[int, list[tuple[h.Operation, h.Usage]]] = defaultdict(list)
        # Every attempt at one request.
        self.attempts: dict[tuple[str, str], list[h.Operation]] = defaultdict(list)
        for operation in history.operations:
            if operation.request_id:
                self.attempts[operation.worker, operation.request_id].append(operation)
        for operation in history.operations:
            self._begin(operation)
        self._members: dict[int, list[Grant]] = defaultdict(list)
        self._by_worker: dict[str, list[Grant]] = defaultdict(list)
        for grant in self.by_id.values():
            self._by_worker[grant.worker].append(grant)
            if grant.bundle:
                self._members[grant.bundle].append(grant)
        for operation in history.operations:
            self._touch(operation)
        self._cut()
        for grant in self.by_id.values():
            self._bound(grant)

    def of(self, sort: type[h.Held]) -> list[Grant]:
        """Return those of a sort, in the order of their ids: that in which they were granted."""
        return sorted((g for g in self.by_id.values() if isinstance(g.held, sort)), key=lambda g: g.id)

    def by_key(self, sort: type[h.Held]) -> dict[Key, list[Grant]]:
        """Return those of a sort by what they exclude others from, or take of."""
        found: dict[Key, list[Grant]] = defaultdict(list)
        for grant in self.of(sort):
            for key in self.keys(grant.held):
                found[key].append(grant)
        return found

    def keys(self, held: h.Held) -> list[Key]:
        """Return what holding it excludes others from."""
        if isinstance(held, h.Lock):
            return [self.lock_key(held.item, held.kind)]
        if isinstance(held, h.Permit):
            return [("endpoint", held.endpoint)]
        return [("resource", held.of, held.resource)] if self.is_exclusive(held.of, held.resource) else []

    def lock_key(self, item: str, kind: str) -> Key:
        """Return what a lock excludes others from, by the loosest rule that was ever in force."""
        by_kind = any(world.locks.exclusive == "item_and_kind" for world in self.timeline.worlds())
        return ("item", item, kind) if by_kind else ("item", item)

    def is_exclusive(self, of: str, resource: str) -> bool:
        """Return whether a resource was exclusive in every configuration."""
        types = [world.types.get(of) for world in self.timeline.worlds()]
        return bool(resource) and not any(each is None or each.pools for each in types)

    # -- what was granted ------------------------------------------------------------------------------------

    def _begin(self, operation: h.Operation) -> None:
        ask, answer, returned = operation.ask, operation.answer, operation.returned_at
        if not isinstance(ask, h.Acquire) or not isinstance(answer, h.Granted) or returned is None:
            return
        for held in answer.held:
            grant = self.by_id.get(held.id)
            if grant is None:
                self.by_id[held.id] = self._new(operation, ask, answer, held)
            else:
                grant.told = min(grant.told, returned)
                grant.high = min(grant.high, returned)
                grant.stamps.append(held.daemon_until)

    def _new(self, operation: h.Operation, ask: h.Acquire, answer: h.Granted, held: h.Held) -> Grant:
        attempts = self.attempts.get((operation.worker, operation.request_id), [operation])
        asked = min(each.called_at for each in attempts)
        told = operation.returned_at or NEVER
        low, high = self.timeline.instant(held.daemon_granted_at, asked, told)
        grant = Grant(
            held, operation.worker, operation.request_id, low, high, asked, told, ask, bundle=answer.bundle
        )
        grant.stamps.append(held.daemon_until)
        grant.is_renewable = self._is_renewable(held)
        grant.extensions.append(Extension(low, high, *self.asked_ttl(ask, held), is_sure=True))
        return grant

    def _is_renewable(self, held: h.Held) -> bool:
        if isinstance(held, h.Reservation):
            return not any(
                world.pools[held.pool].windows for world in self.timeline.worlds() if held.pool in world.pools
            )
        return isinstance(held, h.Lock)

    def asked_ttl(self, ask: h.Acquire, held: h.Held) -> tuple[int, int]:
        """Return for how long it was asked for; if nothing was said, the least and most configured.

        What refills has the time that was told.
        """
        told = held.daemon_until - held.daemon_granted_at
        if isinstance(held, h.Permit) or not self._is_renewable(held):
            return told, told
        worlds = self.timeline.worlds()
        if isinstance(held, h.Lock):
            own = [c.ttl_ns for c in ask.claims if isinstance(c, h.LockClaim) and c.item == held.item]
            configured = [w.kinds[held.kind].ttl_ns for w in worlds if held.kind in w.kinds]
        else:
            own = [
                c.ttl_ns
                for c in ask.claims
                if isinstance(c, h.UnitsClaim) and (c.of, c.resource) == (held.of, held.resource)
            ]
            configured = [w.types[held.of].ttl_ns for w in worlds if held.of in w.types]
        asked = next((ttl for ttl in own if ttl), 0)
        return (asked, asked) if asked else (min(configured, default=told), max(configured, default=told))

    # -- what happened to it then ----------------------------------------------------------------------------

    def _touch(self, operation: h.Operation) -> None:
        if not may_have_worked(operation):
            return
        ask = operation.ask
        for usage in _usages(ask):
            self.reports[usage.id].append((operation, usage))
        if isinstance(ask, h.Release | h.Force | h.Goodbye):
            for grant in self._about(operation, ask):
                grant.ended_by.append(operation)
        elif isinstance(ask, h.Renew | h.Keepalive | h.Register):
            for grant in self._about(operation, ask):
                self._extend(grant, operation, ask.ttl_ns if isinstance(ask, h.Renew) else 0)

    def _about(self, operation: h.Operation, ask: h.Ask) -> list[Grant]:
        """Return what a call may have ended or extended; of a session, what the answer names."""
        if isinstance(ask, h.Renew | h.Release | h.Force):
            return self.named(ask)
        told = operation.answer.held if isinstance(operation.answer, h.Kept) else None
        return [each for each in self._by_worker[operation.worker] if told is None or each.id in told]

    def named(self, ask: h.Renew | h.Release | h.Force) -> list[Grant]:
        """Return what a call is about, as far as it was granted to somebody who was told."""
        members = self._members.get(ask.id, [])
        if not isinstance(ask, h.Force) and ask.of == "bundle":
            return members
        own = [self.by_id[ask.id]] if ask.id in self.by_id else []
        return own + members if isinstance(ask, h.Force) else own

    @staticmethod
    def _extend(grant: Grant, operation: h.Operation, ttl: int) -> None:
        if not grant.is_renewable or operation.called_at < grant.asked:
            return
        shortest = ttl or min(each.ttl for each in grant.extensions)
        longest = ttl or max(each.ttl_most for each in grant.extensions)
        grant.extensions.append(
            Extension(
                operation.called_at, answered_at(operation), shortest, longest, is_sure=is_sure(operation)
            )
        )
        if isinstance(operation.answer, h.Renewed):
            grant.stamps += [held.daemon_until for held in operation.answer.held if held.id == grant.id]

    # -- preemption ------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        """Find before when nothing can have been taken from its holder for a waiter's sake (12.5, 12.6)."""
        worlds = self.timeline.worlds()
        grace = min((world.escalation.preempt_grace_ns for world in worlds), default=0)
        if any(
            isinstance(each.ask, h.Decide) and each.ask.decision == "PREEMPT" and may_have_worked(each)
            for each in self.history.operations
        ):
            delay = 0
        elif any(world.escalation.default in {"preempt", 3} for world in worlds):
            delay = min(world.escalation.timeout_ns for world in worlds)
        else:
            return
        for each in self.history.operations:
            if isinstance(each.answer, h.Decided) and each.answer.holder_id in self.by_id:
                named = self.by_id[each.answer.holder_id]
                named.cut = min(named.cut, self.timeline.elapsed(each.called_at, 0) + grace)
        holders = {**self.by_key(h.Lock), **self.by_key(h.Reservation)}
        for key, waiter in self._conflicts():
            for grant in holders.get(key, ()):
                if answered_at(waiter) >= grant.low:
                    at = self.timeline.elapsed(max(waiter.called_at, grant.low), 0)
                    grant.cut = min(grant.cut, at + min(delay, grace) if delay else at + grace)

    def _conflicts(self) -> Iterator[tuple[Key, h.Operation]]:
        """Yield who may have had the holder of what deprived."""
        for each in self.history.operations:
            if isinstance(each.ask, h.Acquire) and each.ask.wait_ns is not None:
                for claim in each.ask.claims:
                    key = self.claim_key(claim)
                    if key is not None and self.escalates(each.ask, claim):
                        yield key, each

    def escalates(self, ask: h.Acquire, claim: h.Claim) -> bool:
        """Return whether somebody may be asked to decide a conflict of this claim.

        At once by its own rule (12.1); by the time that it waits, by that of any claim beside it (12.2).
        """
        worlds = self.timeline.worlds()
        own = [rule for world in worlds if (rule := _rule(world, claim))]
        beside = [rule for world in worlds for each in ask.claims if (rule := _rule(world, each))]
        is_asked = any((ask.on_conflict or rule.on_conflict.upper()) == "ESCALATE" for rule in own)
        return bool(own) and (is_asked or any(rule.escalate_after_ns for rule in beside))

    def claim_key(self, claim: h.Claim) -> Key | None:
        """Return what a claim excludes others from; None: nothing."""
        if isinstance(claim, h.LockClaim):
            return self.lock_key(claim.item, claim.kind)
        return (
            ("resource", claim.of, claim.resource)
            if isinstance(claim, h.UnitsClaim) and claim.resource
            else None
        )

    # -- until when ------------------------------------------------------------------------------------------

    def _bound(self, grant: Grant) -> None:
        grant.lease_least = self._lease_least(grant)
        grant.lease_most = self._lease_most(grant)
        asked_back = min((each.called_at for each in grant.ended_by), default=NEVER)
        grant.ends_least = min(grant.lease_least, max(asked_back, grant.low), grant.cut)
        grant.ends_most = max(grant.high, min(grant.lease_most, grant.given_back_most()))

    def _lease_least(self, grant: Grant) -> int:
        """Return before when it can't have run out.

        A renewal may also shorten; one without an answer may be carried out after those that were answered.
        """
        latest = max((each for each in grant.extensions if each.is_sure), key=lambda each: each.called)
        last = latest.called
        possible = [
            each
            if each.is_sure
            else Extension(max(each.called, last), NEVER, each.ttl, each.ttl_most, is_sure=False)
            for each in grant.extensions
            if each is latest or not (each.is_sure and each.returned <= last)
        ]
        if not grant.is_renewable:
            return self.timeline.elapsed(grant.low, grant.extensions[0].ttl)
        return min(self.timeline.lease_end_least(each.called, each.returned, each.ttl) for each in possible)

    def _lease_most(self, grant: Grant) -> int:
        """Return when it had surely run out."""
        if not all(each.is_sure for each in grant.extensions):
            return NEVER
        return max(
            self.timeline.lease_end_most(each.called, each.returned, each.ttl_most)
            for each in grant.extensions
        )
