"""What becomes of a request that somebody else is in the way of: it waits, is refused, or is escalated.

Owns: the rule. The request's own word goes before that of its kind or type. A conflict is with whoever holds
an item, a resource or units; a window that is full is none, for nobody can give it up. Of a bundle the word
of the claim that blocks it counts, and the shortest `escalate_after` of all its claims.
Must not know: who holds what, who waits, or how an escalation ends.
"""

from collections.abc import Iterator
from typing import Final

from coordd.core.commands import AcquireBundle, RequestLock, ReserveResource, WaitableCommand
from coordd.core.queues import QueueKey
from coordd.core.rules import DENY, ESCALATE, WAIT, KindRule, Rules, TypeRule

# The first part of the keys of what somebody holds and may give up.
_ITEM: Final = "lock"
_HELD: Final = frozenset({_ITEM, "resource", "pool"})


class Conflicts:
    """What the kinds, the types and the requests themselves say of conflicts."""

    __slots__ = ("_is_silent", "_kinds", "_types")

    def __init__(self, rules: Rules) -> None:
        self._kinds = rules.kinds
        self._types = rules.types
        every: list[KindRule | TypeRule] = [*rules.kinds.values(), *rules.types.values()]
        # Nobody has configured anything, so only requests can say something.
        self._is_silent = all(rule.on_conflict == WAIT and not rule.escalate_after_ns for rule in every)

    def on_conflict(self, command: WaitableCommand, key: QueueKey) -> int:
        """Return WAIT, DENY or ESCALATE for a command that would have to wait for `key`."""
        said: int = getattr(command, "on_conflict", WAIT)
        if said == WAIT or key[0] not in _HELD:
            return WAIT
        if said or self._is_silent:
            return said or WAIT
        return next((rule.on_conflict for rule in self._rules(command, key)), WAIT)

    def is_denied(self, command: WaitableCommand, key: QueueKey) -> bool:
        """Whether a command is refused rather than let wait for `key`."""
        return self.on_conflict(command, key) == DENY

    def escalate_at(self, command: WaitableCommand, key: QueueKey, now: int) -> int:
        """Return when a wait that begins now, for `key`, is escalated: now, later, or 0: never."""
        if self.on_conflict(command, key) == ESCALATE:
            return now
        return self.escalate_again_at(command, now)

    def escalate_again_at(self, command: WaitableCommand, now: int) -> int:
        """Return when a wait is escalated by the mere passing of time from now; 0: never."""
        if self._is_silent:
            return 0
        after_ns = [rule.escalate_after_ns for rule in self._rules(command, ()) if rule.escalate_after_ns]
        return now + min(after_ns) if after_ns else 0

    def _rules(self, command: WaitableCommand, key: QueueKey) -> Iterator[KindRule | TypeRule]:
        """Yield the rules of a command: of a bundle, those of its claims on the sort of `key`, (): on any."""
        if isinstance(command, RequestLock):
            yield self._kinds[command.kind]
        elif isinstance(command, ReserveResource):
            yield self._types[command.type]
        elif isinstance(command, AcquireBundle):
            for lock in command.locks:
                if not key or _is_on(lock, key):
                    yield self._kinds[lock.kind]
            for reservation in command.reservations:
                if not key or self._is_of(reservation, key):
                    yield self._types[reservation.type]

    def _is_of(self, claim: ReserveResource, key: QueueKey) -> bool:
        if key[0] == "resource":
            return key[1:] == (claim.type, claim.resource_id)
        rule = self._types[claim.type]
        return key == ("pool", rule.pools.get(claim.resource_id, rule.pool))


def _is_on(claim: RequestLock, key: QueueKey) -> bool:
    # A lock's scope is its item, or its item and kind.
    return key[0] == _ITEM and key[1] in (claim.item, f"{claim.item}\0{claim.kind}")
