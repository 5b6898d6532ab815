"""From messages of `coordd.v1` to the records of a history.

Owns: what of each message a judge may need. Used wherever calls are made by message, simulated or not.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from audit import history as to
from google.protobuf.message import Message

from coordd.v1 import (
    admin_pb2,
    bundle_pb2,
    common_pb2,
    engagement_pb2,
    rate_limit_pb2,
    reservation_pb2,
    session_pb2,
)


def ask(request: Message) -> to.Ask:
    """Return what a request asks for."""
    asked = _ASKS.get(type(request))
    return to.Other() if asked is None else asked(request)


def answer(reply: Message) -> to.Answer | None:
    """Return what a reply says; None: nothing final."""
    answered = _ANSWERS.get(type(reply))
    return to.Done() if answered is None else answered(reply)


def place(at: int, queued: Any) -> to.Place:
    """Return what a wait's stream says of its place."""
    blocked = queued.blocked_by
    return to.Place(at=at, position=queued.position, reason=_reason(blocked), subject=blocked.subject)


def revoked(at: int, worker: str, revocation: Any) -> to.Revoked:
    """Return what a session's stream says of a lease."""
    return to.Revoked(
        at=at,
        worker=worker,
        id=revocation.id,
        reason=_enum(session_pb2.RevocationReason, revocation.reason),
        within_ns=revocation.within.ToNanoseconds(),
    )


# -- asks -----------------------------------------------------------------------------------------------------


def _enum(type_: Any, value: int) -> str:
    """Return an enum value's name without its prefix; empty: it is not set."""
    if not value:
        return ""
    prefix = type_.Name(0).removesuffix("UNSPECIFIED")
    name: str = type_.Name(value)
    return name.removeprefix(prefix)


def _priority(request: Any) -> str:
    return _enum(common_pb2.Priority, request.priority) or "MEDIUM"


def _wait_ns(request: Any) -> int | None:
    if "wait_timeout" not in request.DESCRIPTOR.fields_by_name:
        return None
    ns: int = request.wait_timeout.ToNanoseconds()
    return ns


def _on_conflict(request: Any) -> str:
    return _enum(common_pb2.OnConflict, getattr(request, "on_conflict", 0))


def _lock_claim(claim: Any) -> to.LockClaim:
    return to.LockClaim(item=claim.item, kind=claim.kind, ttl_ns=claim.ttl.ToNanoseconds())


def _units_claim(claim: Any) -> to.UnitsClaim:
    return to.UnitsClaim(
        of=claim.type, resource=claim.resource_id, units=claim.units, ttl_ns=claim.ttl.ToNanoseconds()
    )


def _permit_claim(claim: Any) -> to.PermitClaim:
    return to.PermitClaim(endpoint=claim.endpoint, permits=claim.permits or 1)


_CLAIMS: Final = {"lock": _lock_claim, "reservation": _units_claim, "permit": _permit_claim}


def _claim(claim: Any) -> to.Claim:
    sort = claim.WhichOneof("claim")
    return _CLAIMS[sort](getattr(claim, sort))


def _acquire_lock(request: Any) -> to.Ask:
    return to.Acquire(
        claims=[_lock_claim(request)],
        wait_ns=_wait_ns(request),
        priority=_priority(request),
        quality=request.quality,
        on_conflict=_on_conflict(request),
    )


def _acquire_units(request: Any) -> to.Ask:
    return to.Acquire(
        claims=[_units_claim(request)],
        wait_ns=_wait_ns(request),
        priority=_priority(request),
        on_conflict=_on_conflict(request),
    )


def _acquire_quota(request: Any) -> to.Ask:
    claim = to.UnitsClaim(of="api_quota", resource=request.operation, units=request.units)
    return to.Acquire(claims=[claim], priority=_priority(request))


def _acquire_permit(request: Any) -> to.Ask:
    return to.Acquire(
        claims=[_permit_claim(request)],
        wait_ns=_wait_ns(request),
        priority=_priority(request),
        booking=getattr(request, "booking_id", 0),
    )


def _acquire_bundle(request: Any) -> to.Ask:
    return to.Acquire(
        claims=[_claim(claim) for claim in request.claims],
        is_bundle=True,
        conditions=[
            to.Condition(item=each.item, within_ns=each.within.ToNanoseconds(), kinds=list(each.kinds))
            for each in request.not_engaged
        ],
        wait_ns=_wait_ns(request),
        priority=_priority(request),
        quality=request.quality,
        on_conflict=_on_conflict(request),
    )


def _usage(usage: Any) -> to.Usage:
    return to.Usage(
        endpoint=usage.endpoint,
        id=usage.permit_id,
        result=_enum(rate_limit_pb2.UsageResult, usage.result),
        status=usage.status_code,
    )


def _outcome(value: int) -> str:
    return _enum(engagement_pb2.Outcome, value)


def _windows(windows: Iterable[Any]) -> dict[int, int]:
    return {each.window.ToNanoseconds(): each.limit for each in windows}


def _release_bundle(request: Any) -> to.Ask:
    return to.Release(
        of="bundle",
        id=request.bundle_id,
        outcome=_outcome(request.outcome),
        outcomes={each.fencing_token: _outcome(each.outcome) for each in request.outcomes},
        usages=[_usage(each) for each in request.usages],
    )


def _session(request: Any) -> to.Ask:
    if request.WhichOneof("message") == "register":
        register = request.register
        return to.Register(
            session=register.session_id, ttl_ns=register.ttl.ToNanoseconds(), take_over=register.take_over
        )
    return to.Keepalive() if request.WhichOneof("message") == "keepalive" else to.Goodbye()


_ASKS: Final[Mapping[type[Message], Callable[[Any], to.Ask]]] = {
    engagement_pb2.RequestLockRequest: _acquire_lock,
    engagement_pb2.AwaitLockRequest: _acquire_lock,
    engagement_pb2.RenewLockRequest: lambda asked: to.Renew(
        of="lock", id=asked.fencing_token, item=asked.item, ttl_ns=asked.ttl.ToNanoseconds()
    ),
    engagement_pb2.ReleaseLockRequest: lambda asked: to.Release(
        of="lock", id=asked.fencing_token, item=asked.item, outcome=_outcome(asked.outcome)
    ),
    engagement_pb2.GetLockRequest: lambda asked: to.ReadItem(item=asked.item, kind=asked.kind),
    engagement_pb2.HasRecentEngagementRequest: lambda asked: to.ReadRecent(
        item=asked.item,
        kinds=list(asked.kinds),
        within_ns=asked.within.ToNanoseconds(),
        include_failures=asked.include_failures,
    ),
    reservation_pb2.ReserveResourceRequest: _acquire_units,
    reservation_pb2.AwaitReservationRequest: _acquire_units,
    reservation_pb2.ReserveApiQuotaRequest: _acquire_quota,
    reservation_pb2.RenewReservationRequest: lambda asked: to.Renew(
        of="reservation", id=asked.reservation_id, ttl_ns=asked.ttl.ToNanoseconds()
    ),
    reservation_pb2.ReleaseResourceRequest: lambda asked: to.Release(
        of="reservation", id=asked.reservation_id, unused=asked.unused_units
    ),
    rate_limit_pb2.CanMakeRequestRequest: _acquire_permit,
    rate_limit_pb2.AwaitPermitRequest: _acquire_permit,
    rate_limit_pb2.RecordUsageRequest: lambda asked: to.Report(usage=_usage(asked)),
    rate_limit_pb2.ScheduleRequestRequest: lambda asked: to.Book(
        endpoint=asked.endpoint,
        permits=asked.permits or 1,
        priority=_priority(asked),
        not_before_ns=asked.not_before.ToNanoseconds(),
    ),
    rate_limit_pb2.CancelScheduleRequest: lambda asked: to.Cancel(booking=asked.booking_id),
    bundle_pb2.AcquireBundleRequest: _acquire_bundle,
    bundle_pb2.AwaitBundleRequest: _acquire_bundle,
    bundle_pb2.RenewBundleRequest: lambda asked: to.Renew(of="bundle", id=asked.bundle_id),
    bundle_pb2.ReleaseBundleRequest: _release_bundle,
    session_pb2.ConnectRequest: _session,
    admin_pb2.UpdatePoolRequest: lambda asked: to.SetPool(
        pool=asked.name, capacity=asked.capacity, windows=_windows(asked.windows), unpin=asked.unpin
    ),
    admin_pb2.UpdateLimitRequest: lambda asked: to.SetLimit(
        endpoint=asked.endpoint, windows=_windows(asked.windows)
    ),
    admin_pb2.ForceReleaseRequest: lambda asked: to.Force(id=asked.id),
    admin_pb2.DrainRequest: lambda asked: to.Drain(undo=asked.undo),
    admin_pb2.ResolveEscalationRequest: lambda asked: to.Decide(
        escalation=asked.escalation_id, decision=_enum(admin_pb2.Decision, asked.decision)
    ),
}

# -- answers --------------------------------------------------------------------------------------------------


def _reason(refusal: Any) -> str:
    return _enum(common_pb2.RefusalReason, refusal.reason)


def lock(lock: Any) -> to.Lock:
    """Return a lock as told."""
    return to.Lock(
        item=lock.item,
        kind=lock.kind,
        worker=lock.worker,
        id=lock.fencing_token,
        daemon_granted_at=lock.granted_at.ToNanoseconds(),
        daemon_until=lock.expires_at.ToNanoseconds(),
        is_preempted=lock.preempted,
    )


def reservation(reservation: Any) -> to.Reservation:
    """Return a reservation as told."""
    return to.Reservation(
        of=reservation.type,
        worker=reservation.worker,
        id=reservation.reservation_id,
        daemon_granted_at=reservation.granted_at.ToNanoseconds(),
        daemon_until=reservation.expires_at.ToNanoseconds(),
        resource=reservation.resource_id,
        pool=reservation.pool,
        units=reservation.units,
        is_preempted=reservation.preempted,
    )


def _permit(permit: Any) -> to.Permit:
    return to.Permit(
        endpoint=permit.endpoint,
        permits=permit.permits,
        worker=permit.worker,
        id=permit.permit_id,
        daemon_granted_at=permit.granted_at.ToNanoseconds(),
        daemon_until=permit.use_by.ToNanoseconds(),
    )


def _members(bundle: Any) -> list[to.Held]:
    return [
        *map(lock, bundle.locks),
        *map(reservation, bundle.reservations),
        *map(_permit, bundle.permits),
    ]


_HELD: Final[Mapping[type[Message], Callable[[Any], to.Granted]]] = {
    engagement_pb2.Lock: lambda held: to.Granted(held=[lock(held)]),
    reservation_pb2.Reservation: lambda held: to.Granted(held=[reservation(held)]),
    rate_limit_pb2.Permit: lambda held: to.Granted(held=[_permit(held)]),
    bundle_pb2.Bundle: lambda held: to.Granted(held=_members(held), bundle=held.bundle_id),
}


def engagement(engagement: Any) -> to.Engagement:
    """Return an entry of the daemon's history as told."""
    return to.Engagement(
        item=engagement.item,
        kind=engagement.kind,
        worker=engagement.worker,
        outcome=_outcome(engagement.outcome),
        daemon_at=engagement.at.ToNanoseconds(),
        token=engagement.fencing_token,
    )


def _result(reply: Any) -> to.Answer | None:
    sort = reply.WhichOneof(reply.DESCRIPTOR.oneofs[0].name)
    if sort == "granted":
        return _HELD[type(reply.granted)](reply.granted)
    if sort != "refused":
        return None
    refusal = reply.refused
    return to.Refused(
        reason=_reason(refusal),
        subject=refusal.subject,
        holder=refusal.holder,
        daemon_retry_at=refusal.retry_at.ToNanoseconds() if refusal.HasField("retry_at") else None,
        retry_after_ns=refusal.retry_after.ToNanoseconds() if refusal.HasField("retry_after") else None,
    )


def _item(reply: Any) -> to.Item:
    return to.Item(
        state=_enum(engagement_pb2.ItemState, reply.state),
        lock=lock(reply.lock) if reply.HasField("lock") else None,
        last=engagement(reply.last_engagement) if reply.HasField("last_engagement") else None,
        daemon_delayed_until=reply.delayed_until.ToNanoseconds() if reply.HasField("delayed_until") else None,
    )


def _session_word(reply: Any) -> to.Answer | None:
    match reply.WhichOneof("message"):
        case "registered":
            opened = reply.registered
            return to.Kept(session=opened.session_id, held=list(opened.held), is_resumed=opened.resumed)
        case "kept_alive":
            return to.Kept(held=list(reply.kept_alive.held))
        case "closed":
            return to.Closed(released=reply.closed.released)
    return None


_ANSWERS: Final[Mapping[type[Message], Callable[[Any], to.Answer | None]]] = {
    engagement_pb2.RequestLockResponse: _result,
    engagement_pb2.AwaitLockResponse: _result,
    reservation_pb2.ReserveResourceResponse: _result,
    reservation_pb2.AwaitReservationResponse: _result,
    reservation_pb2.ReserveApiQuotaResponse: _result,
    rate_limit_pb2.CanMakeRequestResponse: _result,
    rate_limit_pb2.AwaitPermitResponse: _result,
    bundle_pb2.AcquireBundleResponse: _result,
    bundle_pb2.AwaitBundleResponse: _result,
    engagement_pb2.RenewLockResponse: lambda reply: to.Renewed(held=[lock(reply.lock)]),
    reservation_pb2.RenewReservationResponse: lambda reply: to.Renewed(held=[reservation(reply.reservation)]),
    bundle_pb2.RenewBundleResponse: lambda reply: to.Renewed(held=_members(reply.bundle)),
    engagement_pb2.ReleaseLockResponse: lambda reply: to.Released(
        engagements=[engagement(reply.engagement)], already=reply.already_released
    ),
    reservation_pb2.ReleaseResourceResponse: lambda reply: to.Released(already=reply.already_released),
    bundle_pb2.ReleaseBundleResponse: lambda reply: to.Released(
        engagements=list(map(engagement, reply.engagements)),
        already=reply.already_released,
        refunded=reply.refunded,
    ),
    rate_limit_pb2.RecordUsageResponse: lambda reply: to.Settled(
        already=reply.already_settled, refunded=reply.refunded
    ),
    rate_limit_pb2.ScheduleRequestResponse: lambda reply: to.Booked(
        id=reply.booking_id,
        daemon_execute_at=reply.execute_at.ToNanoseconds(),
        daemon_claim_until=reply.claim_until.ToNanoseconds(),
        permits=reply.permits,
    ),
    rate_limit_pb2.CancelScheduleResponse: lambda reply: to.Cancelled(already=reply.already_ended),
    session_pb2.ConnectResponse: _session_word,
    engagement_pb2.GetLockResponse: _item,
    engagement_pb2.HasRecentEngagementResponse: lambda reply: to.Recent(
        latest=engagement(reply.latest) if reply.engaged else None
    ),
    admin_pb2.ResolveEscalationResponse: lambda reply: to.Decided(
        decision=_enum(admin_pb2.Decision, reply.escalation.decision),
        subject=reply.escalation.subject,
        holder_id=reply.escalation.holder_id,
    ),
}
