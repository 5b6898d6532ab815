"""Decisions, waits and commits, counted.

Owns: what of them is which label. A conflict is with others who hold, or are before one in the queue for,
what somebody may give up; that a window is full is none, for nobody can. Must not know: the wire.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from coordd.core import commands, outcomes, records
from coordd.core.machine import Command
from coordd.core.outcomes import Granted, Notice, Outcome, Place, Queued, Reason, Refused
from coordd.core.rules import CRITICAL, HIGH, LOW, MEDIUM
from coordd.core.waiters import Waiter
from coordd.engine import Commit
from coordd.telemetry import catalogue
from coordd.telemetry.instruments import Copy, Counter, Histogram

COMPONENTS: Final[dict[type, str]] = {
    commands.RequestLock: "lock",
    commands.ReserveResource: "reservation",
    commands.TakePermit: "permit",
    commands.ScheduleRequest: "booking",
    commands.AcquireBundle: "bundle",
}
CLASSES: Final = {LOW: "low", MEDIUM: "medium", HIGH: "high", CRITICAL: "critical"}
_REASONS: Final = {reason: reason.name.lower() for reason in Reason}
_BLOCKED_BY_OTHERS: Final = frozenset({Reason.HELD, Reason.UNITS_TAKEN, Reason.QUEUED_AHEAD})
_LEASES: Final[dict[type, str]] = {
    records.Lock: "lock",
    records.Reservation: "reservation",
    records.Permit: "permit",
    records.Booking: "booking",
    records.Bundle: "bundle",
}
_UNDECIDED: Final = "none"


class DecisionMetrics:
    """What is counted of every namespace's engine; `of` gives each its observer."""

    def __init__(self) -> None:
        self.decisions = Counter(catalogue.DECISIONS)
        self.refusals = Counter(catalogue.REFUSALS)
        self.conflicts = Counter(catalogue.CONFLICTS)
        self.expiries = Counter(catalogue.EXPIRIES)
        self.preemptions = Counter(catalogue.PREEMPTIONS)
        self.session_expiries = Counter(catalogue.SESSION_EXPIRIES)
        self.gate_closures = Counter(catalogue.GATE_CLOSURES)
        self.acquisition = Histogram(catalogue.ACQUISITION)
        self.queue_wait = Histogram(catalogue.QUEUE_WAIT)
        self.conflict_time = Histogram(catalogue.CONFLICT_TIME)
        self.escalation_time = Histogram(catalogue.ESCALATION_TIME)
        self.commit_time = Histogram(catalogue.COMMIT_TIME)
        self.commit_commands = Histogram(catalogue.COMMIT_COMMANDS)
        self.commit_records = Histogram(catalogue.COMMIT_RECORDS)

    def copies(self) -> list[Copy]:
        """Return how everything stands."""
        return [each.copy() for each in vars(self).values()]


class EngineMetrics:
    """See `coordd.engine.Observer` and `CommitObserver`; of one namespace."""

    def __init__(self, metrics: DecisionMetrics, namespace: str) -> None:
        self._metrics = metrics
        self._namespace = namespace
        self._on_notice: dict[type, Callable[[Any, int], None]] = {
            outcomes.Expired: self._expired,
            outcomes.Preempted: self._preempted,
            outcomes.SessionExpired: lambda _, __: metrics.session_expiries.add(namespace),
            outcomes.EscalationChanged: self._escalation_changed,
            outcomes.GateChanged: self._gate_changed,
        }

    def answered(self, command: Command, outcome: Outcome, *, asked_at: int, at: int, batch: int) -> None:
        """See Observer."""
        metrics, namespace = self._metrics, self._namespace
        metrics.decisions.add(namespace, _name(command.__class__), _outcome(outcome))
        component = COMPONENTS.get(command.__class__)
        if component is None:
            return
        if isinstance(outcome, Granted) and not outcome.is_repeat:
            began_at = outcome.waiter.enqueued_at if outcome.waiter is not None else asked_at
            metrics.acquisition.observe(at - began_at, namespace, component)
        elif isinstance(outcome, Refused):
            metrics.refusals.add(namespace, component, _REASONS[outcome.reason], "at_once")
            self._met(component, outcome.reason)

    def queued(self, command: commands.WaitableCommand, place: Place) -> None:
        """See Observer."""
        self._met(COMPONENTS[command.__class__], place.blocked_by.reason)

    def served(
        self, waiter: Waiter, final: Granted | Refused, *, first: Place | None, at: int, batch: int
    ) -> None:
        """See Observer."""
        metrics, namespace = self._metrics, self._namespace
        component, waited_ns = COMPONENTS[waiter.command.__class__], at - waiter.enqueued_at
        is_granted = isinstance(final, Granted)
        if is_granted:
            metrics.acquisition.observe(waited_ns, namespace, component)
        reason = "granted" if isinstance(final, Granted) else _REASONS[final.reason]
        if not is_granted:
            metrics.refusals.add(namespace, component, reason, "after_waiting")
        outcome = "granted" if is_granted else "refused"
        metrics.queue_wait.observe(waited_ns, namespace, component, CLASSES[waiter.command.priority], outcome)
        if first is not None and _is_conflict(component, first.blocked_by.reason):
            metrics.conflict_time.observe(waited_ns, namespace, component, reason)

    def happened(self, notice: Notice, at: int) -> None:
        """See Observer."""
        count = self._on_notice.get(notice.__class__)
        if count is not None:
            count(notice, at)

    def committed(self, commit: Commit) -> None:
        """See CommitObserver."""
        metrics, namespace = self._metrics, self._namespace
        metrics.commit_time.observe(commit.ended_at - commit.began_at, namespace)
        metrics.commit_commands.observe(commit.commands, namespace)
        metrics.commit_records.observe(commit.records, namespace)

    # --------------------------------------------------------------------------------------------------------

    def _met(self, component: str, reason: Reason) -> None:
        if _is_conflict(component, reason):
            self._metrics.conflicts.add(self._namespace, component, _REASONS[reason])

    def _expired(self, notice: outcomes.Expired, at: int) -> None:
        self._metrics.expiries.add(self._namespace, _LEASES[notice.grant.__class__])

    def _preempted(self, notice: outcomes.Preempted, at: int) -> None:
        self._metrics.preemptions.add(self._namespace, "announced" if notice.at > at else "taken")

    def _escalation_changed(self, notice: outcomes.EscalationChanged, at: int) -> None:
        escalation = notice.escalation
        if not notice.is_open:
            decision = (
                records.Decision(escalation.decision).name.lower() if escalation.decision else _UNDECIDED
            )
            self._metrics.escalation_time.observe(at - escalation.opened_at, self._namespace, decision)

    def _gate_changed(self, notice: outcomes.GateChanged, at: int) -> None:
        if notice.gate.closed_until > at:
            self._metrics.gate_closures.add(self._namespace, notice.gate.endpoint)


def _is_conflict(component: str, reason: Reason) -> bool:
    return reason in _BLOCKED_BY_OTHERS and component not in {"permit", "booking"}


_NAMES: Final[dict[type, str]] = {}


def _name(kind: type) -> str:
    """Return a class's name as a label: `LockReleased` is lock_released."""
    name = _NAMES.get(kind)
    if name is None:
        name = _NAMES[kind] = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
    return name


def _outcome(outcome: Outcome) -> str:
    if isinstance(outcome, Granted | outcomes.Booked | outcomes.LockReleased) and outcome.is_repeat:
        return "repeated"
    if isinstance(outcome, Queued) and outcome.is_resumed:
        return "resumed"
    return _name(outcome.__class__)
