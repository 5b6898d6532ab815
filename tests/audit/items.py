"""An item, or an exclusive resource, as a register: nobody's, or somebody's under a token, until it runs out.

Owns: what operations on it do (semantics 3.1, 3.3, 3.7, 3.8), for the search in `linear`.
Rules: a lease runs out by itself at any instant from the earliest on at which it can, then the item rests.
What nobody was told of may be over at any time; a read may tell its token, and from then on it has that one.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from audit import history as h
from audit.grants import Grant, Grants, Key, is_sure, may_have_worked
from audit.linear import Event, Verdict, check
from audit.timeline import NEVER, Timeline
from audit.violation import Violation

_NOBODY = 0


class State(NamedTuple):
    """Who has it, from when on that can run out, and from when on it is free then; and the highest token."""

    holder: int = _NOBODY
    ends: int = 0
    rests: int = 0
    last: int = 0


FREE = State()


@dataclass(frozen=True)
class Take:
    """Takes it. `before`: the token that was told before it; they rise."""

    id: int
    ttl: int
    delay: int
    before: int


@dataclass(frozen=True)
class TakeUntold:
    """May have taken it, without having been told."""


@dataclass(frozen=True)
class Keep:
    """Lets the lease run anew."""

    id: int
    ttl: int
    delay: int


@dataclass(frozen=True)
class Give:
    """Gives it back. Optional ones do nothing where they come too late."""

    id: int


@dataclass(frozen=True)
class Gone:
    """Is told that it is over."""

    id: int


@dataclass(frozen=True)
class See:
    """Is told who has it: a token, nobody, or somebody (None). `is_untold`: no grant told of that token."""

    id: int | None
    is_untold: bool = False


Op: TypeAlias = Take | TakeUntold | Keep | Give | Gone | See


class Register:
    """The rules. `called` and `limit`: within which instants the operation takes effect."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def step(self, state: State, op: Op, called: int, limit: int) -> Iterator[State]:
        """Yield where the operation may lead."""
        yield from _STEPS[type(op)](self, state, op, called, limit)

    def _take(self, state: State, op: Take, called: int, limit: int) -> Iterator[State]:
        # Ids rise, also above one that a read has told.
        if self._is_free(state, limit) and op.before == state.last and state.holder < op.id:
            yield self._held(op.id, op, called, limit, op.id)

    def _take_untold(self, state: State, op: TakeUntold, called: int, limit: int) -> Iterator[State]:
        if self._is_free(state, limit):
            yield State(-called, 0, 0, state.last)

    def _keep(self, state: State, op: Keep, called: int, limit: int) -> Iterator[State]:
        if state.holder == op.id:
            yield self._held(op.id, op, called, limit, state.last)

    def _give(self, state: State, op: Give, called: int, limit: int) -> Iterator[State]:
        if state.holder == op.id:
            yield State(last=state.last)

    def _gone(self, state: State, op: Gone, called: int, limit: int) -> Iterator[State]:
        if state.holder != op.id:
            yield state
        elif state.ends <= limit:
            yield state._replace(holder=_NOBODY)

    def _see(self, state: State, op: See, called: int, limit: int) -> Iterator[State]:
        if op.id is None:
            if state.holder != _NOBODY:
                yield state
        elif op.id == state.holder:
            yield state
        elif state.holder < _NOBODY and op.is_untold and op.id > state.last:
            yield state._replace(holder=op.id)
        elif op.id == _NOBODY and state.ends <= limit:
            yield state._replace(holder=_NOBODY)

    def _held(self, holder: int, op: Take | Keep, called: int, limit: int, last: int) -> State:
        ends = self._timeline.lease_end_least(called, limit, op.ttl)
        return State(holder, ends, self._timeline.elapsed(ends, op.delay), last)

    @staticmethod
    def _is_free(state: State, limit: int) -> bool:
        return state.rests <= limit


_STEPS = {
    Take: Register._take,
    TakeUntold: Register._take_untold,
    Keep: Register._keep,
    Give: Register._give,
    Gone: Register._gone,
    See: Register._see,
}


def verdicts(grants: Grants) -> dict[Key, Verdict]:
    """Return of each item, and each exclusive resource, whether its history is linearizable.

    Where restarts have changed what a lock excludes, several may hold an item for a while (14.2): undecided.
    """
    register = Register(grants.timeline)
    is_steady = len({world.locks.exclusive for world in grants.timeline.worlds()}) == 1
    return {
        key: check(events, FREE, register.step) if is_steady or key[0] != "item" else Verdict.UNDECIDED
        for key, events in sorted(_Events(grants).by_key.items())
    }


def items_are_registers(grants: Grants) -> Iterator[Violation]:
    """3: all that was asked of an item, and answered, is explained by one order in which it was done."""
    for key, verdict in verdicts(grants).items():
        if verdict is Verdict.NO:
            at = max((each.returned_at or 0 for each in grants.history.operations), default=0)
            yield Violation(at, "items are registers", f"{key}: no order explains what was answered")


def _before(grants: Grants) -> dict[int, int]:
    """Return of each token the one before it on the same thing; 0: none."""
    held = [*grants.by_key(h.Lock).values(), *grants.by_key(h.Reservation).values()]
    return {
        grant.id: before
        for own in held
        for grant, before in zip(own, [0, *(each.id for each in own)], strict=False)
    }


def _says_held(answer: h.Answer | None, key: Key) -> bool:
    is_held = isinstance(answer, h.Refused) and answer.reason == "HELD"
    return is_held and answer.subject in {key[1], "/".join(key[1:])}


class _Events:
    """What was done to each item, told from a history."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants
        self._before = _before(grants)
        self._taken: set[tuple[Key, int]] = set()
        self.by_key: dict[Key, list[Event[Op]]] = defaultdict(list)
        for operation in grants.history.operations:
            if isinstance(operation.ask, h.Acquire):
                self._acquire(operation, operation.ask)
            elif isinstance(operation.ask, h.ReadItem):
                self._read(operation, operation.ask)
            elif isinstance(operation.ask, h.Renew | h.Release):
                self._gone(operation, operation.ask)
        for grant in [*grants.of(h.Lock), *grants.of(h.Reservation)]:
            for key in grants.keys(grant.held):
                self._extensions(grant, key)
                self._ends(grant, key)

    def _add(self, key: Key, operation: h.Operation, op: Op, *, is_required: bool) -> None:
        returned = operation.returned_at if is_required else None
        self.by_key[key].append(Event(operation.called_at, returned, op))

    def _acquire(self, operation: h.Operation, ask: h.Acquire) -> None:
        if isinstance(operation.answer, h.Granted):
            for held in operation.answer.held:
                for key in [] if isinstance(held, h.Permit) else self._grants.keys(held):
                    self._told(operation, key, self._grants.by_id[held.id])
            return
        for key in filter(None, map(self._key, ask.claims)):
            if not is_sure(operation) and self._is_untold(operation, key):
                self._add(key, operation, TakeUntold(), is_required=False)
            elif _says_held(operation.answer, key):
                self._add(key, operation, See(None), is_required=True)

    def _told(self, operation: h.Operation, key: Key, grant: Grant) -> None:
        """It was taken when the daemon says, if that lies within the call; a repeat sees it held."""
        if operation.returned_at != grant.told or (key, grant.id) in self._taken:
            self._add(key, operation, See(grant.id), is_required=True)
            return
        self._taken.add((key, grant.id))
        take = Take(grant.id, grant.extensions[0].ttl, self._delay(grant), self._before[grant.id])
        self.by_key[key].append(Event(grant.low, grant.high, take))

    def _is_untold(self, operation: h.Operation, key: Key) -> bool:
        """Return whether it may have taken what nobody was told of.

        Not if another attempt was told; but a wait's grant whose stream is gone goes back, untold (4.7).
        """
        if isinstance(operation.ask, h.Acquire) and operation.ask.wait_ns is not None:
            return True
        return not any(
            key in self._grants.keys(held)
            for each in self._grants.attempts.get((operation.worker, operation.request_id), ())
            if isinstance(each.answer, h.Granted)
            for held in each.answer.held
        )

    def _key(self, claim: h.Claim) -> Key | None:
        key = self._grants.claim_key(claim)
        is_shared = isinstance(claim, h.UnitsClaim) and not self._grants.is_exclusive(
            claim.of, claim.resource
        )
        return None if is_shared else key

    def _delay(self, grant: Grant) -> int:
        if not isinstance(grant.held, h.Lock):
            return 0
        kinds = [world.kinds.get(grant.held.kind) for world in self._grants.timeline.worlds()]
        return min((kind.lock_delay_ns if kind else 0 for kind in kinds), default=0)

    def _extensions(self, grant: Grant, key: Key) -> None:
        for each in grant.extensions[1:]:
            keep = Keep(grant.id, each.ttl, self._delay(grant))
            returned = each.returned if each.is_sure else None
            self.by_key[key].append(Event(each.called, returned, keep))

    def _ends(self, grant: Grant, key: Key) -> None:
        for operation in grant.ended_by:
            single = isinstance(operation.ask, h.Release) and operation.ask.of != "bundle"
            if single and isinstance(operation.answer, h.Released):
                op: Op = Gone(grant.id) if operation.answer.already else Give(grant.id)
                self._add(key, operation, op, is_required=True)
            elif may_have_worked(operation):
                self._add(key, operation, Give(grant.id), is_required=False)
        if grant.cut < NEVER:
            self.by_key[key].append(Event(grant.cut, None, Give(grant.id)))

    def _gone(self, operation: h.Operation, ask: h.Renew | h.Release) -> None:
        answer = operation.answer
        if ask.of != "bundle" and isinstance(answer, h.Failed) and answer.reason == "LEASE_LOST":
            for grant in self._grants.named(ask):
                for key in self._grants.keys(grant.held):
                    self._add(key, operation, Gone(grant.id), is_required=True)

    def _read(self, operation: h.Operation, ask: h.ReadItem) -> None:
        # Where locks are by kind, no kind asks for any of them.
        if isinstance(operation.answer, h.Item) and (ask.kind or len(self._grants.lock_key("", "")) == 2):
            lock = operation.answer.lock
            key = self._grants.lock_key(ask.item, ask.kind)
            is_untold = lock is not None and lock.id not in self._grants.by_id
            self._add(key, operation, See(lock.id if lock else _NOBODY, is_untold), is_required=True)
