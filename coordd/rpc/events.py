"""What the engine decided, as events for those who watch: one table from types of outcomes to what is told.

Rules: only what changed something or was refused is an event; a repeat of an earlier answer is none.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from coordd.core import commands, outcomes, records
from coordd.core.lengths import spell_length
from coordd.engine import DrainChanged, Event
from coordd.rpc import messages
from coordd.v1 import admin_pb2 as pb

Told = pb.WatchEventsResponse
Record = records.Lock | records.Reservation | records.Permit | records.Booking | records.Bundle


class Filter(Struct, frozen=True, kw_only=True):
    """What a watcher wants to see. Empty: all."""

    subjects: Collection[int]
    types: Collection[int]
    worker: str

    def passes(self, event: Told) -> bool:
        """Return whether the watcher wants to see the event."""
        return (
            (not self.subjects or event.subject in self.subjects)
            and (not self.types or event.type in self.types)
            and (not self.worker or event.worker == self.worker)
        )


def told(event: Event) -> Told | None:
    """Return the event as it is told to watchers, None if it is not. `missed` is the stream's to say."""
    tell = _TELL.get(type(event.outcome))
    message = tell(event) if tell else None
    if message is not None:
        message.at.CopyFrom(messages.timestamp(event.at))
    return message


def _lock(record: records.Lock | records.Engagement) -> Told:
    return Told(
        subject=pb.SUBJECT_LOCK, id=record.token, name=record.item, kind=record.kind, worker=record.worker
    )


def _reservation(record: records.Reservation) -> Told:
    return Told(
        subject=pb.SUBJECT_RESERVATION,
        id=record.id,
        name=reservation_name(record.type, record.resource_id, record.pool),
        kind=record.type,
        worker=record.worker,
        units=record.units,
    )


def reservation_name(type_name: str, resource_id: str, pool: str) -> str:
    """Return the name of what is reserved: `type/resource_id`, or the pool where units only."""
    return f"{type_name}/{resource_id}" if resource_id else pool or type_name


def _permit(record: records.Permit) -> Told:
    return Told(
        subject=pb.SUBJECT_PERMIT,
        id=record.id,
        name=record.endpoint,
        worker=record.worker,
        units=record.count,
    )


def _booking(record: records.Booking) -> Told:
    return Told(
        subject=pb.SUBJECT_BOOKING,
        id=record.id,
        name=record.endpoint,
        worker=record.worker,
        units=record.count,
    )


def _bundle(record: records.Bundle) -> Told:
    locks, reservations, permits = msgspec.json.decode(record.claims)
    names = [
        *(item for item, _ in locks),
        *(reservation_name(type_name, resource_id, "") for type_name, resource_id, _ in reservations),
        *(endpoint for endpoint, _ in permits),
    ]
    return _of_bundle(names, record.id, record.worker)


def _of_bundle(names: Collection[str], bundle_id: int, worker: str) -> Told:
    """Return what is told of a bundle: what it takes, and of how many things that is."""
    return Told(
        subject=pb.SUBJECT_BUNDLE, id=bundle_id, name=", ".join(names), worker=worker, units=len(names)
    )


_RECORDS: Final[Mapping[type, Callable[[Any], Told]]] = {
    records.Lock: _lock,
    records.Engagement: _lock,
    records.Reservation: _reservation,
    records.Permit: _permit,
    records.Booking: _booking,
    records.Bundle: _bundle,
}


def subject_of(record: Record) -> tuple[pb.Subject.ValueType, str, str]:
    """Return what kind of thing a record is, its name and its worker."""
    about = _about(record)
    return about.subject, about.name, about.worker


def name_of(record: Record) -> str:
    """Return what is held: an item, `type/resource_id`, a pool or an endpoint."""
    name: str = _about(record).name
    return name


def _about(
    record: Record | records.Engagement,
    type_: pb.EventType.ValueType = pb.EVENT_TYPE_UNSPECIFIED,
    detail: str = "",
) -> Told:
    about = _RECORDS[type(record)](record)
    about.type = type_
    about.detail = detail
    return about


def _ended(record: Record | None, detail: str = "") -> Told | None:
    # None: it had ended before, and was told then.
    return None if record is None else _about(record, pb.EVENT_TYPE_RELEASED, detail)


def _asked_lock(command: commands.RequestLock) -> Told:
    return Told(subject=pb.SUBJECT_LOCK, name=command.item, kind=command.kind, worker=command.worker)


def _asked_reservation(command: commands.ReserveResource) -> Told:
    return Told(
        subject=pb.SUBJECT_RESERVATION,
        name=reservation_name(command.type, command.resource_id, ""),
        kind=command.type,
        worker=command.worker,
        units=command.units,
    )


def _asked_permit(command: commands.TakePermit) -> Told:
    return Told(subject=pb.SUBJECT_PERMIT, name=command.endpoint, worker=command.worker, units=command.count)


def _asked_bundle(command: commands.AcquireBundle) -> Told:
    names = [
        *(claim.item for claim in command.locks),
        *(reservation_name(claim.type, claim.resource_id, "") for claim in command.reservations),
        *(claim.endpoint for claim in command.permits),
    ]
    return _of_bundle(names, 0, command.worker)


_COMMANDS: Final[Mapping[type, Callable[[Any], Told]]] = {
    commands.RequestLock: _asked_lock,
    commands.ReserveResource: _asked_reservation,
    commands.TakePermit: _asked_permit,
    commands.AcquireBundle: _asked_bundle,
}


def _asked(command: Any, type_: pb.EventType.ValueType) -> Told:
    asked = _COMMANDS[type(command)](command)
    asked.type = type_
    return asked


def _granted(event: Any) -> Told | None:
    outcome: outcomes.Granted = event.outcome
    return None if outcome.is_repeat else _about(outcome.grant, pb.EVENT_TYPE_GRANTED)


def _booked(event: Any) -> Told | None:
    outcome: outcomes.Booked = event.outcome
    return None if outcome.is_repeat else _about(outcome.booking, pb.EVENT_TYPE_GRANTED)


def _refused(event: Any) -> Told:
    return _no(event.command, event.outcome)


def _wait_refused(event: Any) -> Told:
    return _no(event.outcome.waiter.command, event.outcome.refused)


def _wait_voided(event: Any) -> Told:
    voided = _asked(event.outcome.waiter.command, pb.EVENT_TYPE_REFUSED)
    voided.detail = event.outcome.error.reason
    return voided


def _no(command: Any, outcome: outcomes.Refused) -> Told:
    refused = _asked(command, pb.EVENT_TYPE_REFUSED)
    refused.refusal_reason = messages.reason(outcome.reason)
    refused.detail = outcome.subject if outcome.subject != refused.name else ""
    return refused


def _queued(event: Any) -> Told:
    outcome: outcomes.Queued = event.outcome
    queued = _asked(event.command, pb.EVENT_TYPE_QUEUED)
    queued.detail = "resumed" if outcome.is_resumed else ""
    return queued


def _renewed(event: Any) -> Told:
    outcome: outcomes.Renewed = event.outcome
    return _about(outcome.grant, pb.EVENT_TYPE_RENEWED)


def _lock_released(event: Any) -> Told | None:
    outcome: outcomes.LockReleased = event.outcome
    ended = records.Outcome(outcome.engagement.outcome).name.lower()
    return None if outcome.is_repeat else _about(outcome.engagement, pb.EVENT_TYPE_RELEASED, ended)


def _resource_released(event: Any) -> Told | None:
    outcome: outcomes.ResourceReleased = event.outcome
    unused = f"{event.command.unused_units} unused" if event.command.unused_units else ""
    return _ended(outcome.reservation, unused)


def _usage_recorded(event: Any) -> Told | None:
    outcome: outcomes.UsageRecorded = event.outcome
    return _ended(outcome.permit, usage(event.command))


def usage(command: commands.RecordUsage) -> str:
    """Return in words what became of a permit, and what upstream answered."""
    result = "success" if command.is_success else "failure" if command.is_sent else "not sent"
    status = f", status {command.status_code}" if command.status_code else ""
    # As JSON: what upstream sent may have any character, and this ends up in somebody's terminal.
    headers = f", headers {json.dumps(command.headers)}" if command.headers else ""
    return result + status + headers


def _booking_cancelled(event: Any) -> Told | None:
    outcome: outcomes.BookingCancelled = event.outcome
    return _ended(outcome.booking)


def _grant_returned(event: Any) -> Told | None:
    outcome: outcomes.GrantReturned = event.outcome
    return _ended(outcome.grant, "its waiter was gone")


def _forced(event: Any) -> Told:
    outcome: outcomes.Forced = event.outcome
    return _about(outcome.grant, pb.EVENT_TYPE_FORCED, event.command.reason)


def _updated(event: Any) -> Told:
    outcome: outcomes.Updated = event.outcome
    return Told(subject=pb.SUBJECT_SETTING, type=pb.EVENT_TYPE_UPDATED, name=outcome.subject)


def _drain_changed(event: Any) -> Told:
    outcome: DrainChanged = event.outcome
    draining = f"draining: {outcome.reason}" if outcome.reason else "draining"
    detail = draining if outcome.is_draining else "granting again"
    return Told(subject=pb.SUBJECT_SETTING, type=pb.EVENT_TYPE_UPDATED, name="daemon", detail=detail)


def _wait_granted(event: Any) -> Told:
    outcome: outcomes.WaitGranted = event.outcome
    return _about(outcome.grant, pb.EVENT_TYPE_GRANTED, "after a wait")


def _expired(event: Any) -> Told:
    outcome: outcomes.Expired = event.outcome
    return _about(outcome.grant, pb.EVENT_TYPE_EXPIRED)


def _bundle_released(event: Any) -> Told | None:
    outcome: outcomes.BundleReleased = event.outcome
    return _ended(outcome.bundle)


def _bundle_ended(event: Any) -> Told | None:
    outcome: outcomes.BundleEnded = event.outcome
    return _ended(outcome.bundle, "its last member has ended")


def _preempted(event: Any) -> Told:
    outcome: outcomes.Preempted = event.outcome
    left_ns = outcome.at - event.at
    detail = f"in {spell_length(left_ns)}" if left_ns > 0 else "taken"
    return _about(outcome.grant, pb.EVENT_TYPE_PREEMPTED, detail)


def _session(record: records.Session, type_: pb.EventType.ValueType, detail: str = "") -> Told:
    return Told(
        subject=pb.SUBJECT_SESSION,
        type=type_,
        id=record.id,
        name=record.worker,
        kind=record.worker_class,
        worker=record.worker,
        detail=detail,
    )


def _session_opened(event: Any) -> Told:
    outcome: outcomes.SessionOpened = event.outcome
    return _session(outcome.session, pb.EVENT_TYPE_OPENED, "resumed" if outcome.is_resumed else "")


def _session_closed(event: Any) -> Told:
    outcome: outcomes.SessionClosed = event.outcome
    return _session(outcome.session, pb.EVENT_TYPE_RELEASED, f"{outcome.released} released")


def _given_back(event: Any) -> Told:
    outcome: outcomes.GivenBack = event.outcome
    return _about(outcome.grant, pb.EVENT_TYPE_RELEASED, "its worker has closed its session")


def _session_expired(event: Any) -> Told:
    outcome: outcomes.SessionExpired = event.outcome
    return _session(outcome.session, pb.EVENT_TYPE_EXPIRED)


def _escalation_changed(event: Any) -> Told:
    outcome: outcomes.EscalationChanged = event.outcome
    record = outcome.escalation
    type_ = pb.EVENT_TYPE_OPENED if outcome.is_open else pb.EVENT_TYPE_RESOLVED
    decision = pb.Decision.Name(record.decision).removeprefix("DECISION_").lower()  # type: ignore[arg-type]
    detail = f"{decision} by {record.decided_by}" if record.decision else ""
    if record.reason:
        detail += f": {record.reason}"
    return Told(
        subject=pb.SUBJECT_ESCALATION,
        type=type_,
        id=record.id,
        name=record.subject,
        worker=record.worker,
        detail=detail,
    )


def _gate_changed(event: Any) -> Told:
    gate: records.Gate = event.outcome.gate
    if not gate.closed_until:
        return Told(subject=pb.SUBJECT_GATE, type=pb.EVENT_TYPE_OPENED, name=gate.endpoint)
    detail = f"probe {gate.probe_id}" if gate.probe_id else "the next call probes"
    if gate.closed_until > event.at:
        strikes = "1 refusal" if gate.strikes == 1 else f"{gate.strikes} refusals in a row"
        detail = f"for {spell_length(gate.closed_until - event.at)}, {strikes}"
    return Told(subject=pb.SUBJECT_GATE, type=pb.EVENT_TYPE_CLOSED, name=gate.endpoint, detail=detail)


def _limit_learned(event: Any) -> Told:
    outcome: outcomes.LimitLearned = event.outcome
    is_in_force = outcome.is_in_force
    detail = f"upstream allows {outcome.value} in {spell_length(outcome.window_ns)}, " + (
        "as configured" if outcome.value == outcome.configured else f"configured are {outcome.configured}"
    )
    type_ = pb.EVENT_TYPE_LEARNED if is_in_force else pb.EVENT_TYPE_ALERT
    return Told(subject=pb.SUBJECT_SETTING, type=type_, name=outcome.subject, detail=detail)


def _alert(event: Any) -> Told:
    outcome: outcomes.Alert = event.outcome
    return Told(
        subject=pb.SUBJECT_SETTING, type=pb.EVENT_TYPE_ALERT, name=outcome.subject, detail=outcome.detail
    )


def _capacity_changed(event: Any) -> Told:
    outcome: outcomes.CapacityChanged = event.outcome
    return Told(
        subject=pb.SUBJECT_SETTING,
        type=pb.EVENT_TYPE_LEARNED,
        name=f"pool/{outcome.pool}",
        detail=f"capacity {outcome.before} -> {outcome.after}",
    )


# What is not here is not told: that a waiter is away, or a session kept, is a matter between the daemon and
# its wire; what a decision changes is told by the notice of it.
_TELL: Final[Mapping[type, Callable[[Any], Told | None]]] = {
    outcomes.Granted: _granted,
    outcomes.Booked: _booked,
    outcomes.Refused: _refused,
    outcomes.Queued: _queued,
    outcomes.Renewed: _renewed,
    outcomes.LockReleased: _lock_released,
    outcomes.ResourceReleased: _resource_released,
    outcomes.UsageRecorded: _usage_recorded,
    outcomes.BookingCancelled: _booking_cancelled,
    outcomes.GrantReturned: _grant_returned,
    outcomes.Forced: _forced,
    outcomes.Updated: _updated,
    DrainChanged: _drain_changed,
    outcomes.WaitGranted: _wait_granted,
    outcomes.WaitRefused: _wait_refused,
    outcomes.WaitVoided: _wait_voided,
    outcomes.Expired: _expired,
    outcomes.BundleReleased: _bundle_released,
    outcomes.BundleEnded: _bundle_ended,
    outcomes.Preempted: _preempted,
    outcomes.SessionOpened: _session_opened,
    outcomes.SessionClosed: _session_closed,
    outcomes.SessionExpired: _session_expired,
    outcomes.GivenBack: _given_back,
    outcomes.EscalationChanged: _escalation_changed,
    outcomes.GateChanged: _gate_changed,
    outcomes.LimitLearned: _limit_learned,
    outcomes.Alert: _alert,
    outcomes.CapacityChanged: _capacity_changed,
}
