"""Records, outcomes and views as messages.

Rules: one `now` per reply, so that every length of time in it is counted from the same instant; an instant
that matters has a length of time from now beside it, because clocks differ. Waits are rounded up to whole ms:
to ask a fraction too early would be refused again. Leases are not: to believe in one for longer than it lasts
is worse.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from coordd.core import gates, records, rules, views
from coordd.core.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND
from coordd.core.outcomes import Grant, Granted, Place, Reason, Refused, grant_id
from coordd.store.protocol import EngagementCount
from coordd.v1 import admin_pb2, bundle_pb2, common_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2

# By name, so that a number that drifts apart from the protos' fails at import and not in an operator's table.
_REASONS: Final = {
    reason: common_pb2.RefusalReason.Value(f"REFUSAL_REASON_{reason.name}") for reason in Reason
}
_OUTCOMES: Final = {
    int(outcome): engagement_pb2.Outcome.Value(f"OUTCOME_{outcome.name}") for outcome in records.Outcome
}
_GATE_STATES: Final = {
    state: rate_limit_pb2.GateState.Value(f"GATE_STATE_{state.name}") for state in views.GateState
}
_COUNTED: Final = {
    int(records.Outcome.SUCCESS): "successful",
    int(records.Outcome.FAILURE): "failed",
    int(records.Outcome.UNKNOWN): "unknown",
}
_WINDOW_NAMES: Final = {HOUR: "per_hour", DAY: "per_day"}
_WINDOW_UNITS: Final = (
    (DAY, "d"),
    (HOUR, "h"),
    (MINUTE, "min"),
    (SECOND, "s"),
    (MILLISECOND, "ms"),
    (1, "ns"),
)
# Weights are kept in thousandths.
_MILLI: Final = 1_000
_PRIORITIES: Final = {
    rules.LOW: common_pb2.PRIORITY_LOW,
    rules.MEDIUM: common_pb2.PRIORITY_MEDIUM,
    rules.HIGH: common_pb2.PRIORITY_HIGH,
    rules.CRITICAL: common_pb2.PRIORITY_CRITICAL,
}
_PPM: Final = 1_000_000
_WARNING_FROM: Final = 0.80
_CRITICAL_ABOVE: Final = 0.95


def timestamp(ns: int) -> Timestamp:
    """Return an instant, ns since the epoch."""
    return Timestamp(seconds=ns // SECOND, nanos=ns % SECOND)


def duration(ns: int) -> Duration:
    """Return a length of time, never below 0: what is over has no time left."""
    ns = max(0, ns)
    return Duration(seconds=ns // SECOND, nanos=ns % SECOND)


def wait(ns: int) -> Duration:
    """Return how long to wait, rounded up to whole ms."""
    return duration(-(-ns // MILLISECOND) * MILLISECOND)


def lock(held: records.Lock, now: int) -> engagement_pb2.Lock:
    """Return a held lock, seen at `now` (ns)."""
    return engagement_pb2.Lock(
        item=held.item,
        kind=held.kind,
        worker=held.worker,
        fencing_token=held.token,
        granted_at=timestamp(held.granted_at),
        expires_at=timestamp(held.expires_at),
        expires_in=duration(held.expires_at - now),
        preempted=bool(held.preempt_at),
    )


def escalation(record: records.Escalation, now: int, default: int, *, is_open: bool) -> admin_pb2.Escalation:
    """Return an escalation, seen at `now` (ns). `default`: what holds if nobody decides."""
    return admin_pb2.Escalation(
        escalation_id=record.id,
        subject=record.subject,
        worker=record.worker,
        priority=record.priority,  # type: ignore[arg-type]
        waited=duration(record.waited_ns),
        holder=record.holder,
        holder_id=record.holder_id,
        opened_at=timestamp(record.opened_at),
        decide_by=timestamp(record.decide_by),
        decide_within=duration(max(0, record.decide_by - now)),
        default_decision=default,  # type: ignore[arg-type]
        decision=record.decision,  # type: ignore[arg-type]
        decided_by=record.decided_by,
        is_open=is_open,
    )


def gate(record: records.Gate, now: int) -> rate_limit_pb2.Gate:
    """Return an endpoint's gate, seen at `now` (ns)."""
    return gate_seen(gates.gate_view(record, now), now)


def gate_seen(view: views.GateView, now: int) -> rate_limit_pb2.Gate:
    """Return how an endpoint's gate was seen to stand at `now` (ns)."""
    message = rate_limit_pb2.Gate(state=_GATE_STATES[view.state], strikes=view.strikes)
    if view.state != views.GateState.OPEN:
        # A pause that is over, with no probe under way: now.
        opens_at = max(view.opens_at, now)
        message.opens_at.CopyFrom(timestamp(opens_at))
        message.opens_in.CopyFrom(wait(opens_at - now))
    return message


def session(view: views.SessionView, now: int, *, is_connected: bool) -> admin_pb2.SessionInfo:
    """Return a worker's session, seen at `now` (ns)."""
    record = view.session
    return admin_pb2.SessionInfo(
        worker=record.worker,
        session_id=record.id,
        worker_class=record.worker_class,
        weight=view.weight_milli / _MILLI,
        labels=json.loads(record.labels),
        opened_at=timestamp(record.opened_at),
        expires_in=duration(record.expires_at - now),
        held=view.held,
        connected=is_connected,
    )


def engagement(entry: records.Engagement) -> engagement_pb2.Engagement:
    """Return an entry of the history."""
    return engagement_pb2.Engagement(
        item=entry.item,
        kind=entry.kind,
        worker=entry.worker,
        outcome=_OUTCOMES[entry.outcome],
        at=timestamp(entry.at),
        fencing_token=entry.token,
    )


def engagement_stats(
    counts: Iterable[EngagementCount], kinds: Iterable[str]
) -> engagement_pb2.GetEngagementStatsResponse:
    """Return counts by kind and outcome; every one of `kinds` is there, also with 0."""
    stats = engagement_pb2.GetEngagementStatsResponse(
        by_kind={kind: engagement_pb2.KindStats() for kind in kinds}
    )
    for entry in counts:
        for counted in (stats, stats.by_kind[entry.kind]):
            _count(counted, entry)
    stats.success_rate = stats.successful / stats.total if stats.total else 0.0
    return stats


def _count(
    counted: engagement_pb2.GetEngagementStatsResponse | engagement_pb2.KindStats, entry: EngagementCount
) -> None:
    field = _COUNTED[entry.outcome]
    setattr(counted, field, getattr(counted, field) + entry.count)
    counted.total += entry.count


def reservation(held: records.Reservation, now: int) -> reservation_pb2.Reservation:
    """Return a live reservation, seen at `now` (ns)."""
    return reservation_pb2.Reservation(
        reservation_id=held.id,
        type=held.type,
        resource_id=held.resource_id,
        pool=held.pool,
        units=held.units,
        worker=held.worker,
        granted_at=timestamp(held.granted_at),
        expires_at=timestamp(held.expires_at),
        expires_in=duration(held.expires_at - now),
        preempted=bool(held.preempt_at),
    )


def permit(held: records.Permit, now: int) -> rate_limit_pb2.Permit:
    """Return a permit, seen at `now` (ns)."""
    return rate_limit_pb2.Permit(
        permit_id=held.id,
        endpoint=held.endpoint,
        worker=held.worker,
        permits=held.count,
        granted_at=timestamp(held.granted_at),
        use_by=timestamp(held.use_by),
        use_within=duration(held.use_by - now),
    )


def bundle(held: records.Bundle, now: int) -> bundle_pb2.Bundle:
    """Return a live bundle, seen at `now` (ns)."""
    leases = [
        member
        for member in held.held
        if isinstance(member, records.Lock)
        or (isinstance(member, records.Reservation) and not member.is_refilling)
    ]
    return bundle_pb2.Bundle(
        bundle_id=held.id,
        worker=held.worker,
        granted_at=timestamp(held.granted_at),
        locks=[lock(member, now) for member in held.held if isinstance(member, records.Lock)],
        reservations=[
            reservation(member, now) for member in held.held if isinstance(member, records.Reservation)
        ],
        permits=[permit(member, now) for member in held.held if isinstance(member, records.Permit)],
        expires_in=duration(min(lease.expires_at for lease in leases) - now) if leases else None,
        lease_ids=map(grant_id, leases),
    )


def booking(booked: records.Booking, now: int) -> rate_limit_pb2.ScheduleRequestResponse:
    """Return a booking, seen at `now` (ns)."""
    return rate_limit_pb2.ScheduleRequestResponse(
        booking_id=booked.id,
        execute_at=timestamp(booked.execute_at),
        estimated_delay=wait(booked.execute_at - now),
        claim_until=timestamp(booked.claim_until),
        permits=booked.count,
    )


def reason(value: Reason) -> common_pb2.RefusalReason.ValueType:
    """Return why something is refused."""
    return _REASONS[value]


def refusal(refused: Refused, now: int) -> common_pb2.Refusal:
    """Return why not, and when to ask again from `now` (ns)."""
    message = common_pb2.Refusal(
        reason=_REASONS[refused.reason],
        subject=refused.subject,
        holder=refused.holder,
        queue_position=refused.position,
    )
    if refused.retry_at:
        message.retry_at.CopyFrom(timestamp(refused.retry_at))
        message.retry_after.CopyFrom(wait(refused.retry_at - now))
    if refused.window_ns:
        message.window.CopyFrom(duration(refused.window_ns))
    return message


def queued(place: Place, now: int) -> common_pb2.Queued:
    """Return where a waiter stands at `now` (ns)."""
    return common_pb2.Queued(
        position=place.position,
        estimated_wait=None if place.wait_ns is None else wait(place.wait_ns),
        blocked_by=refusal(place.blocked_by, now),
        times_out_in=duration(place.times_out_at - now),
    )


def held(record: Grant, now: int) -> Any:
    """Return the Lock, Reservation, Permit or Bundle that a live record is, seen at `now` (ns)."""
    return _GRANTS[type(record)](record, now)


def _granted(outcome: Granted, now: int) -> Message:
    return _GRANTS[type(outcome.grant)](outcome.grant, now)


def answer(outcome: object, now: int) -> dict[str, Any]:
    """Return the one field of a reply's `result` or a stream's `event` that says `outcome`, by its name."""
    name, message = _ANSWERS[type(outcome)]
    return {name: message(outcome, now)}


def window_name(length_ns: int) -> str:
    """Return per_15min, per_hour, per_day, or `per_` and the length in its largest whole unit, as per_10s."""
    unit_ns, unit = next(unit for unit in _WINDOW_UNITS if length_ns % unit[0] == 0)
    return _WINDOW_NAMES.get(length_ns, f"per_{length_ns // unit_ns}{unit}")


def window_capacities(windows: Sequence[views.WindowView], now: int) -> list[rate_limit_pb2.WindowCapacity]:
    """Return rolling windows, seen at `now` (ns)."""
    return [_window_capacity(window, now) for window in windows]


def _window_capacity(window: views.WindowView, now: int) -> rate_limit_pb2.WindowCapacity:
    return rate_limit_pb2.WindowCapacity(
        name=window_name(window.length_ns),
        window=duration(window.length_ns),
        limit=window.limit,
        used=window.used,
        remaining=window.remaining,
        resets_at=timestamp(window.resets_at),
        resets_in=wait(window.resets_at - now),
    )


def allocation(share: views.AllocationView) -> rate_limit_pb2.GetWorkerAllocationResponse:
    """Return a worker's part of an endpoint."""
    return rate_limit_pb2.GetWorkerAllocationResponse(
        windows=map(_window_allocation, share.windows),
        active_workers=share.active_workers,
        weight=share.weight,
        efficiency=share.efficiency,
        demand_per_s=share.demand_per_s,
    )


def worker_allocation(share: views.AllocationView) -> rate_limit_pb2.WorkerAllocation:
    """Return a worker's part of an endpoint, with its name."""
    return rate_limit_pb2.WorkerAllocation(
        worker=share.name,
        windows=map(_window_allocation, share.windows),
        weight=share.weight,
        efficiency=share.efficiency,
        demand_per_s=share.demand_per_s,
        queued_permits=share.queued_units,
    )


def _window_allocation(share: views.ShareView) -> rate_limit_pb2.WindowAllocation:
    return rate_limit_pb2.WindowAllocation(
        name=window_name(share.length_ns),
        window=duration(share.length_ns),
        allocated=share.allocated,
        used=share.used,
        remaining=share.remaining,
        own=share.own,
        lent=share.lent,
        borrowed=share.borrowed,
    )


def remaining_capacity(limit_view: views.LimitView, now: int) -> rate_limit_pb2.GetRemainingCapacityResponse:
    """Return what is left of an endpoint at `now` (ns)."""
    is_shut = limit_view.gate.state is views.GateState.CLOSED
    return rate_limit_pb2.GetRemainingCapacityResponse(
        windows=window_capacities(limit_view.windows, now),
        remaining=0 if is_shut else limit_view.remaining,
        gate=gate_seen(limit_view.gate, now),
    )


def health(
    utilisation: float, gate_state: views.GateState = views.GateState.OPEN
) -> rate_limit_pb2.Health.ValueType:
    """Return how an endpoint fares by its fullest window and its gate.

    Healthy below 80 %, critical above 95 % or while nobody may call; a probe under way is a warning.
    """
    if utilisation > _CRITICAL_ABOVE or gate_state is views.GateState.CLOSED:
        return rate_limit_pb2.HEALTH_CRITICAL
    is_tense = utilisation >= _WARNING_FROM or gate_state is views.GateState.PROBING
    return rate_limit_pb2.HEALTH_WARNING if is_tense else rate_limit_pb2.HEALTH_HEALTHY


def learned_limits(learned: Iterable[records.LearnedLimit]) -> list[rate_limit_pb2.LearnedLimit]:
    """Return what upstream tells of limits."""
    return [
        rate_limit_pb2.LearnedLimit(
            window=duration(limit.window_ns),
            limit=limit.value,
            configured=limit.configured,
            in_force=limit.value <= limit.configured,
        )
        for limit in learned
    ]


def endpoint_status(limit_view: views.LimitView, now: int) -> rate_limit_pb2.EndpointStatus:
    """Return an endpoint's health at `now` (ns)."""
    error_ns = limit_view.scheduling_error_ns
    return rate_limit_pb2.EndpointStatus(
        endpoint=limit_view.name,
        health=health(limit_view.utilisation, limit_view.gate.state),
        utilisation=limit_view.utilisation,
        active_workers=limit_view.active_workers,
        queued=limit_view.queued,
        windows=window_capacities(limit_view.windows, now),
        violations=limit_view.violations,
        gate=gate_seen(limit_view.gate, now),
        learned=learned_limits(limit_view.learned),
        malformed_headers=limit_view.malformed_headers,
        forecasts=[_class_forecast(forecast) for forecast in limit_view.forecasts],
        scheduling_error=None if error_ns is None else duration(error_ns),
    )


def _class_forecast(forecast: views.ForecastView) -> rate_limit_pb2.ClassForecast:
    return rate_limit_pb2.ClassForecast(
        priority=_PRIORITIES[forecast.priority], per_s=forecast.rate_ppm / _PPM, kept=forecast.kept
    )


def limit(limit_view: views.LimitView, now: int) -> admin_pb2.Limit:
    """Return an endpoint's limit at `now` (ns)."""
    return admin_pb2.Limit(
        endpoint=limit_view.name,
        allocation="fair" if limit_view.is_fair else "priority",
        windows=window_capacities(limit_view.windows, now),
        use_within=duration(limit_view.use_within_ns),
        claim_window=duration(limit_view.claim_window_ns),
        queued=limit_view.queued,
        bookings=limit_view.bookings,
        is_overridden=limit_view.is_overridden,
        gate=gate_seen(limit_view.gate, now),
        learned=learned_limits(limit_view.learned),
    )


def pool(pool_view: views.PoolView, now: int) -> admin_pb2.Pool:
    """Return a pool at `now` (ns)."""
    return admin_pb2.Pool(
        name=pool_view.name,
        capacity=pool_view.capacity,
        used=pool_view.used,
        free=pool_view.free,
        queued=pool_view.queued,
        windows=window_capacities(pool_view.windows, now),
        is_overridden=pool_view.is_overridden,
        capacity_min=pool_view.capacity_min,
        capacity_max=pool_view.capacity_max,
        overflow=pool_view.overflow,
        allocation="fair" if pool_view.is_fair else "priority",
    )


def availability(view: views.AvailabilityView, now: int) -> reservation_pb2.CheckAvailabilityResponse:
    """Return whether a reservation could be made at `now` (ns)."""
    return reservation_pb2.CheckAvailabilityResponse(
        available=view.blocked_by is None,
        queue_position=view.position,
        estimated_wait=None if view.wait_ns is None else wait(view.wait_ns),
        blocked_by=None if view.blocked_by is None else refusal(view.blocked_by, now),
        free_units=view.free_units,
        capacity=view.capacity,
    )


_GRANTS: Final[Mapping[type, Callable[[Any, int], Message]]] = {
    records.Lock: lock,
    records.Reservation: reservation,
    records.Permit: permit,
    records.Bundle: bundle,
}
_ANSWERS: Final[Mapping[type, tuple[str, Callable[[Any, int], Message]]]] = {
    Granted: ("granted", _granted),
    Refused: ("refused", refusal),
    Place: ("queued", queued),
}
