"""What the decision of an escalation does.

Owns: GRANT, DENY, PREEMPT and WAIT. Rules: the first decision counts; where nobody decides in time the
default holds, at that instant. GRANT puts the waiter before everybody else, behind those put first before it;
an away waiter keeps that. PREEMPT does the same, and takes what it waits for from its one holder after
`preempt_grace`. DENY ends the wait. WAIT leaves everything as it is; the wait may be escalated again after
`escalate_after`.
Must not know: how a decision came about.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from coordd.core.commands import ResolveEscalation
from coordd.core.errors import FailedPrecondition
from coordd.core.escalations import Escalations, Holder, escalation_closed
from coordd.core.outcomes import EscalationResolved
from coordd.core.preemption import Preemption, is_preemptible
from coordd.core.records import Decision, Escalation
from coordd.core.rules import Rules
from coordd.core.waiters import Waiter
from coordd.core.waits import Waits

BY_DEFAULT: Final = "default"


class Decisions:
    """Decides escalations."""

    __slots__ = ("_default", "_do", "_escalations", "_preemption", "_waits")

    def __init__(self, rules: Rules, waits: Waits, escalations: Escalations, preemption: Preemption) -> None:
        self._default = rules.escalation_default
        self._preemption = preemption
        self._waits = waits
        self._escalations = escalations
        self._do: dict[int, Callable[[Waiter, int], None]] = {
            Decision.GRANT: waits.put_first,
            Decision.DENY: waits.deny,
            Decision.PREEMPT: self._preempt,
            Decision.WAIT: waits.escalate_later,
        }

    def resolve(self, command: ResolveEscalation, now: int) -> EscalationResolved:
        """Decide an escalation.

        Raises: NotFound (UNKNOWN_ID), FailedPrecondition (ESCALATION_CLOSED, NOT_PREEMPTIBLE).
        """
        escalation = self._escalations.live(command.id, now)
        waiter = self._waits.waiters[escalation.waiter_id]
        if self._waits.is_over(waiter, now):
            raise escalation_closed(command.id)
        if command.decision == Decision.PREEMPT and not self._preemptible(waiter, now):
            raise FailedPrecondition(
                "NOT_PREEMPTIBLE",
                f"{escalation.subject} has no one holder that it could be taken from.",
                id=command.id,
                subject=escalation.subject,
            )
        self._decide(escalation, command.decision, command.decided_by, command.reason, now)
        return EscalationResolved(escalation=replace(escalation))

    def due(self, escalation: Escalation, now: int) -> None:
        """Let the default hold: nobody has decided in time."""
        waiter = self._waits.waiters[escalation.waiter_id]
        if self._waits.is_over(waiter, now):
            self._waits.due(waiter, now)
            return
        decision = self._default
        if decision == Decision.PREEMPT and not self._preemptible(waiter, now):
            decision = Decision.WAIT
        self._decide(escalation, decision, BY_DEFAULT, "", now)

    # --------------------------------------------------------------------------------------------------------

    def _decide(self, escalation: Escalation, decision: int, decided_by: str, reason: str, now: int) -> None:
        waiter = self._waits.waiters[escalation.waiter_id]
        self._escalations.decided(escalation, decision, decided_by, reason)
        self._do[decision](waiter, now)

    def _preemptible(self, waiter: Waiter, now: int) -> list[Holder]:
        """Return the one holder of what a waiter waits for, if it can be taken from it; else [].

        Of one that is away: of the first of all it wants that can be.
        """
        keys = (waiter.key,) if waiter.key else self._waits.keys(waiter)
        holders = (self._escalations.holder(key) for key in keys)
        return [holder for holder in holders if holder is not None and is_preemptible(holder, now)][:1]

    def _preempt(self, waiter: Waiter, now: int) -> None:
        for holder in self._preemptible(waiter, now):
            self._preemption.begin(holder, now)
        self._waits.put_first(waiter, now)
