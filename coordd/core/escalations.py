"""Open escalations: conflicts that somebody is asked to decide, and the time there is for it.

Owns: which waits are escalated. Rules: a wait has at most one escalation open; it is closed when it is
decided, when nobody has decided in time, or when the wait ends otherwise. There may be only so many: beyond
that none is opened, and one alert is raised until there is room again.
Must not know: what a decision does.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from coordd.core.errors import FailedPrecondition
from coordd.core.ledger import Ledger
from coordd.core.limits import ESCALATIONS_MAX
from coordd.core.outcomes import Alert, EscalationChanged, grant_id
from coordd.core.queues import QueueKey
from coordd.core.records import Escalation, Lock, Reservation, Table
from coordd.core.rules import Rules
from coordd.core.waiters import Waiter

Holder = Lock | Reservation
# How to find the one who holds what a key names, by the key's first part; None: nobody, or several.
HolderOf = Mapping[str, Callable[[Any], Holder | None]]


class Escalations:
    """Those that are open. `of`: by the id of the waiter they are about."""

    __slots__ = ("_changed", "_holder_of", "_is_alerted", "_ledger", "_open", "_timeout_ns", "of")

    def __init__(self, rules: Rules, ledger: Ledger, holder_of: HolderOf) -> None:
        self._ledger = ledger
        self._holder_of = holder_of
        self._timeout_ns = rules.escalation_timeout_ns
        self._changed = ledger.changes.of[Table.ESCALATIONS]
        self._open: dict[int, Escalation] = {}
        self._is_alerted = False
        self.of: dict[int, Escalation] = {}

    def __len__(self) -> int:
        """Open escalations."""
        return len(self._open)

    def all(self) -> list[Escalation]:
        """Return the open escalations, oldest first."""
        return list(self._open.values())

    def holder(self, key: QueueKey) -> Holder | None:
        """Return the one who holds what `key` names; None: nobody, several, or it is nothing of the kind."""
        find = self._holder_of.get(key[0])
        return find(key) if find is not None else None

    def open(self, waiter: Waiter, subject: str, now: int) -> bool:
        """Ask about a waiter that is in a queue, and has none open; say whether there was room for it."""
        if len(self._open) >= ESCALATIONS_MAX:
            self._alert()
            return False
        held = self.holder(waiter.key)
        escalation = Escalation(
            id=self._ledger.next_id(),
            waiter_id=waiter.id,
            subject=subject,
            worker=waiter.command.worker,
            priority=waiter.command.priority,
            waited_ns=now - waiter.enqueued_at,
            holder=held.worker if held is not None else "",
            holder_id=grant_id(held) if held is not None else 0,
            opened_at=now,
            decide_by=now + self._timeout_ns,
        )
        self._take_in(escalation)
        self._changed[escalation.id] = escalation
        self._tell(escalation, is_open=True)
        return True

    def live(self, id: int, now: int) -> Escalation:
        """Return an open escalation.

        Raises: NotFound (UNKNOWN_ID), FailedPrecondition (ESCALATION_CLOSED).
        """
        self._ledger.ended(id, "escalation")
        escalation = self._open.get(id)
        # One whose time is over but was not ticked yet is closed: order decides, not the length of a tick.
        if escalation is None or escalation.decide_by <= now:
            raise escalation_closed(id)
        return escalation

    def decided(self, escalation: Escalation, decision: int, decided_by: str, reason: str) -> None:
        """Close an escalation that somebody, or the default, has decided."""
        escalation.decision = decision
        escalation.decided_by = decided_by
        escalation.reason = reason
        self._close(escalation)

    def end(self, waiter_id: int) -> None:
        """Close the escalation of a wait that ends otherwise, if it has one."""
        escalation = self.of.get(waiter_id)
        if escalation is not None:
            self._close(escalation)

    def load(self, escalation: Escalation, waiter: Waiter | None, decide_by: int) -> None:
        """Take an open escalation in as it was stored, to be decided not before `decide_by`.

        One whose waiter is gone is dropped: it had no request id, so it ended with the daemon.
        """
        if waiter is None:
            self._changed[escalation.id] = None
            return
        if escalation.decide_by < decide_by:
            escalation.decide_by = decide_by
            self._changed[escalation.id] = escalation
        self._take_in(escalation)

    # --------------------------------------------------------------------------------------------------------

    def _take_in(self, escalation: Escalation) -> None:
        self._open[escalation.id] = escalation
        self.of[escalation.waiter_id] = escalation
        self._ledger.deadlines.schedule(escalation, escalation.decide_by)

    def _close(self, escalation: Escalation) -> None:
        del self._open[escalation.id], self.of[escalation.waiter_id]
        self._ledger.deadlines.cancel(escalation)
        self._changed[escalation.id] = None
        self._is_alerted = False
        self._tell(escalation, is_open=False)

    def _tell(self, escalation: Escalation, *, is_open: bool) -> None:
        self._ledger.notices.append(EscalationChanged(escalation=replace(escalation), is_open=is_open))

    def _alert(self) -> None:
        if not self._is_alerted:
            self._is_alerted = True
            detail = f"{ESCALATIONS_MAX} escalations are open; no more are opened until some are decided."
            self._ledger.notices.append(Alert(subject="escalations", detail=detail))


def escalation_closed(id: int) -> FailedPrecondition:
    """Build the error for a decision that comes too late."""
    return FailedPrecondition("ESCALATION_CLOSED", f"The escalation {id} is closed.", id=id)
