"""Writes down what clients ask and are told, from the messages themselves.

Owns: what each message means in a history. Rules: messages are read by their fields' names, so that neither
coordd nor its generated code is needed here; what a request left out is what the protos say it means then.
"""

from collections.abc import Callable
from typing import Any, Final

from audit import history as h

_PRIORITIES: Final = ("MEDIUM", "LOW", "MEDIUM", "HIGH", "CRITICAL")


class Recorder:
    """A history in the making. `now_ns`: the observer's clock."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns
        self._entries: list[h.Entry] = []
        self._open: dict[Call, None] = {}

    def call(self, method: str, request: Any, *, worker: str = "", session: int = 0) -> "Call":
        """A client is about to ask; tell the call what becomes of it.

        Args: method: the RPC's name, or Register, Keepalive, Goodbye for what is said on a session's stream.
        worker, session: who says it, and in which, where the message itself does not tell.
        """
        call = Call(self, method, request, worker, session)
        self._open[call] = None
        return call

    def add(self, entry: h.Entry) -> None:
        """Something else was seen."""
        self._entries.append(entry)

    def end(self, call: "Call", operation: h.Operation) -> None:
        """A call is over."""
        self._open.pop(call, None)
        self._entries.append(operation)

    def history(self) -> h.History:
        """Return what was seen so far; what has no answer yet has none."""
        finished = h.Finished(at=self.now_ns())
        return h.History([*self._entries, *(call.operation() for call in self._open), finished])


class Call:
    """One call that is under way, or one message of a session's stream.

    Rules: of several answers the first that ends it counts; a stream's places are no answers.
    """

    def __init__(self, recorder: Recorder, method: str, request: Any, worker: str, session: int) -> None:
        self._recorder = recorder
        self._called_at = recorder.now_ns()
        self._method = method
        self._worker = worker or getattr(request, "worker", "")
        self._request_id = getattr(request, "request_id", "")
        self._ask = _SESSION[method](session) if method in _SESSION else _ASKS.get(method, _other)(request)
        self._places: list[h.Place] = []
        self._is_over = False

    def told(self, message: Any) -> None:
        """A message has come."""
        if _which(message, "event") == "queued":
            self._places.append(_place(self._recorder.now_ns(), message.queued))
        elif not self._is_over:
            self._end(_ANSWERS.get(self._method, _done)(message))

    def failed(self, code: str, reason: str = "") -> None:
        """It has ended with another status than OK."""
        if not self._is_over:
            self._end(h.Failed(code, reason))

    def lost(self) -> None:
        """Its client has stopped waiting for it."""
        if not self._is_over:
            self._is_over = True
            self._recorder.end(self, self.operation())

    def operation(self, returned_at: int | None = None, answer: h.Answer | None = None) -> h.Operation:
        """Return it as it is now."""
        return h.Operation(
            self._called_at,
            self._method,
            self._ask,
            self._worker,
            self._request_id,
            self._places,
            returned_at,
            answer,
        )

    def _end(self, answer: h.Answer) -> None:
        self._is_over = True
        self._recorder.end(self, self.operation(self._recorder.now_ns(), answer))


def _place(at: int, queued: Any) -> h.Place:
    refusal = queued.blocked_by
    return h.Place(at, queued.position, _name(refusal, "reason"), refusal.subject)


# -- fields --------------------------------------------------------------------------------------------------


def _which(message: Any, group: str) -> str | None:
    return message.WhichOneof(group) if group in message.DESCRIPTOR.oneofs_by_name else None


def _name(message: Any, field: str) -> str:
    """Return an enum's value by its name, without the prefix that the enum's own name is; empty: not said."""
    number = getattr(message, field)
    if number == 0:
        return ""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    value = enum.values_by_number.get(number)
    zero: str = enum.values_by_number[0].name
    return str(number) if value is None else value.name.removeprefix(zero.removesuffix("UNSPECIFIED"))


def _ns(message: Any, field: str) -> int:
    """Return a Duration's or Timestamp's ns; 0: absent."""
    return getattr(message, field).ToNanoseconds() if message.HasField(field) else 0


def _ns_or_none(message: Any, field: str) -> int | None:
    return _ns(message, field) if message.HasField(field) else None


def _windows(message: Any) -> dict[int, int]:
    return {_ns(window, "window"): window.limit for window in message.windows}


# -- what is asked -------------------------------------------------------------------------------------------


def _lock_claim(message: Any) -> h.LockClaim:
    return h.LockClaim(message.item, message.kind, _ns(message, "ttl"))


def _units_claim(message: Any) -> h.UnitsClaim:
    return h.UnitsClaim(message.type, message.resource_id, message.units, _ns(message, "ttl"))


def _quota_claim(message: Any) -> h.UnitsClaim:
    return h.UnitsClaim("api_quota", message.operation, message.units)


def _permit_claim(message: Any) -> h.PermitClaim:
    return h.PermitClaim(message.endpoint, message.permits or 1)


_CLAIMS: Final = {"lock": _lock_claim, "reservation": _units_claim, "permit": _permit_claim}


def _bundle_claims(message: Any) -> list[h.Claim]:
    sorts = [(claim, claim.WhichOneof("claim")) for claim in message.claims]
    return [_CLAIMS[sort](getattr(claim, sort)) for claim, sort in sorts if sort]


def _condition(message: Any) -> h.Condition:
    return h.Condition(message.item, _ns(message, "within"), list(message.kinds))


def _acquire(message: Any, claims: list[h.Claim], *, is_bundle: bool = False) -> h.Acquire:
    names = message.DESCRIPTOR.fields_by_name
    return h.Acquire(
        claims,
        is_bundle=is_bundle,
        conditions=[_condition(each) for each in getattr(message, "not_engaged", ())],
        wait_ns=_ns(message, "wait_timeout") if "wait_timeout" in names else None,
        priority=_PRIORITIES[message.priority] if message.priority < len(_PRIORITIES) else "",
        quality=getattr(message, "quality", 0.0),
        on_conflict=_name(message, "on_conflict") if "on_conflict" in names else "",
        booking=getattr(message, "booking_id", 0),
    )


def _single(claim: Callable[[Any], h.Claim]) -> Callable[[Any], h.Acquire]:
    return lambda message: _acquire(message, [claim(message)])


def _bundle(message: Any) -> h.Acquire:
    return _acquire(message, _bundle_claims(message), is_bundle=True)


def _usage(message: Any) -> h.Usage:
    return h.Usage(message.endpoint, message.permit_id, _name(message, "result"), message.status_code)


def _release_bundle(message: Any) -> h.Release:
    return h.Release(
        "bundle",
        message.bundle_id,
        outcome=_name(message, "outcome"),
        outcomes={each.fencing_token: _name(each, "outcome") for each in message.outcomes},
        usages=[_usage(each) for each in message.usages],
    )


def _other(_message: Any) -> h.Other:
    return h.Other()


_ASKS: Final[dict[str, Callable[[Any], h.Ask]]] = {
    "RequestLock": _single(_lock_claim),
    "AwaitLock": _single(_lock_claim),
    "RenewLock": lambda m: h.Renew("lock", m.fencing_token, m.item, _ns(m, "ttl")),
    "ReleaseLock": lambda m: h.Release("lock", m.fencing_token, m.item, _name(m, "outcome")),
    "GetLock": lambda m: h.ReadItem(m.item, m.kind),
    "HasRecentEngagement": lambda m: h.ReadRecent(
        m.item, list(m.kinds), _ns(m, "within") or 86_400 * h.SECOND, m.include_failures
    ),
    "ReserveResource": _single(_units_claim),
    "AwaitReservation": _single(_units_claim),
    "ReserveApiQuota": _single(_quota_claim),
    "RenewReservation": lambda m: h.Renew("reservation", m.reservation_id, ttl_ns=_ns(m, "ttl")),
    "ReleaseResource": lambda m: h.Release("reservation", m.reservation_id, unused=m.unused_units),
    "CanMakeRequest": _single(_permit_claim),
    "AwaitPermit": _single(_permit_claim),
    "RecordUsage": lambda m: h.Report(_usage(m)),
    "ScheduleRequest": lambda m: h.Book(
        m.endpoint, m.permits or 1, _PRIORITIES[m.priority], _ns(m, "not_before")
    ),
    "CancelSchedule": lambda m: h.Cancel(m.booking_id),
    "AcquireBundle": _bundle,
    "AwaitBundle": _bundle,
    "RenewBundle": lambda m: h.Renew("bundle", m.bundle_id),
    "ReleaseBundle": _release_bundle,
    "UpdatePool": lambda m: h.SetPool(m.name, m.capacity, _windows(m), m.unpin),
    "UpdateLimit": lambda m: h.SetLimit(m.endpoint, _windows(m)),
    "ForceRelease": lambda m: h.Force(m.id),
    "Drain": lambda m: h.Drain(m.undo),
    "ResolveEscalation": lambda m: h.Decide(m.escalation_id, _name(m, "decision")),
    # The messages of a session's stream, each of which is answered.
    "Register": lambda m: h.Register(m.session_id, _ns(m, "ttl"), m.take_over),
}
_SESSION: Final[dict[str, Callable[[int], h.Ask]]] = {"Keepalive": h.Keepalive, "Goodbye": h.Goodbye}

# -- what is answered ----------------------------------------------------------------------------------------


def lock(message: Any) -> h.Lock:
    """Return a Lock."""
    return h.Lock(
        message.item,
        message.kind,
        message.worker,
        message.fencing_token,
        _ns(message, "granted_at"),
        _ns(message, "expires_at"),
        message.preempted,
    )


def reservation(message: Any) -> h.Reservation:
    """Return a Reservation."""
    return h.Reservation(
        message.type,
        message.worker,
        message.reservation_id,
        _ns(message, "granted_at"),
        _ns(message, "expires_at"),
        message.resource_id,
        message.pool,
        message.units,
        message.preempted,
    )


def permit(message: Any) -> h.Permit:
    """Return a Permit."""
    return h.Permit(
        message.endpoint,
        message.permits,
        message.worker,
        message.permit_id,
        _ns(message, "granted_at"),
        _ns(message, "use_by"),
    )


def engagement(message: Any) -> h.Engagement:
    """Return an Engagement."""
    return h.Engagement(
        message.item,
        message.kind,
        message.worker,
        _name(message, "outcome"),
        _ns(message, "at"),
        message.fencing_token,
    )


_HELD: Final[dict[str, Callable[[Any], h.Held]]] = {
    "Lock": lock,
    "Reservation": reservation,
    "Permit": permit,
}


def _held(message: Any) -> list[h.Held]:
    """Return what a Lock, Reservation, Permit or Bundle holds."""
    name = message.DESCRIPTOR.name
    if name in _HELD:
        return [_HELD[name](message)]
    return [
        *map(lock, message.locks),
        *map(reservation, message.reservations),
        *map(permit, message.permits),
    ]


def _refused(message: Any) -> h.Refused:
    return h.Refused(
        _name(message, "reason"),
        message.subject,
        message.holder,
        _ns_or_none(message, "retry_at"),
        _ns_or_none(message, "retry_after"),
    )


def _acquired(message: Any) -> h.Answer:
    if message.HasField("granted"):
        return h.Granted(_held(message.granted), getattr(message.granted, "bundle_id", 0))
    return _refused(message.refused)


def _booked(message: Any) -> h.Booked:
    return h.Booked(
        message.booking_id, _ns(message, "execute_at"), _ns(message, "claim_until"), message.permits
    )


def _item(message: Any) -> h.Item:
    return h.Item(
        _name(message, "state"),
        lock(message.lock) if message.HasField("lock") else None,
        engagement(message.last_engagement) if message.HasField("last_engagement") else None,
        _ns_or_none(message, "delayed_until"),
    )


def _recent(message: Any) -> h.Recent:
    return h.Recent(engagement(message.latest) if message.HasField("latest") else None)


def _kept(message: Any) -> h.Kept:
    return h.Kept(getattr(message, "session_id", 0), list(message.held), getattr(message, "resumed", False))


def _decided(message: Any) -> h.Decided:
    told = message.escalation
    return h.Decided(_name(told, "decision"), told.subject, told.holder_id)


def _done(_message: Any) -> h.Done:
    return h.Done()


_ANSWERS: Final[dict[str, Callable[[Any], h.Answer]]] = {
    **dict.fromkeys(
        (
            "RequestLock",
            "AwaitLock",
            "ReserveResource",
            "AwaitReservation",
            "ReserveApiQuota",
            "CanMakeRequest",
            "AwaitPermit",
            "AcquireBundle",
            "AwaitBundle",
        ),
        _acquired,
    ),
    "RenewLock": lambda m: h.Renewed(_held(m.lock)),
    "RenewReservation": lambda m: h.Renewed(_held(m.reservation)),
    "RenewBundle": lambda m: h.Renewed(_held(m.bundle)),
    "ReleaseLock": lambda m: h.Released([engagement(m.engagement)], m.already_released),
    "ReleaseResource": lambda m: h.Released(already=m.already_released),
    "ReleaseBundle": lambda m: h.Released([*map(engagement, m.engagements)], m.already_released, m.refunded),
    "RecordUsage": lambda m: h.Settled(m.already_settled, m.refunded),
    "ScheduleRequest": _booked,
    "CancelSchedule": lambda m: h.Cancelled(m.already_ended),
    "GetLock": _item,
    "HasRecentEngagement": _recent,
    "ResolveEscalation": _decided,
    "Register": _kept,
    "Keepalive": _kept,
    "Goodbye": lambda m: h.Closed(m.released),
}
