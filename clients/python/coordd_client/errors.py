"""What can go wrong, as one tree.

    CoorddError
    ├── Refused                 normal business: not now; `.refusal` says why and when to ask again
    │   ├── WaitTimeout         the wait ended without a grant
    │   └── Superseded          another stream resumed this wait by its request id; do not ask again
    ├── LeaseLost               the lease ran out or was taken away: stop acting
    ├── NotHolder               it belongs to another worker, or the token is not the grant's
    ├── RequestEnded            the request id's grant is already over
    ├── RequestIdReused         the request id belongs to another request
    ├── BookingLapsed           the booking was not claimed in time, or was cancelled
    ├── EscalationClosed        somebody else, or the default, has decided it, or the wait is over
    ├── NotPreemptible          there is no one holder that it could be taken from
    ├── SessionTaken            another process has this worker's name, and a session
    ├── Unauthenticated         the daemon does not know who this is: no token, or nobody's
    ├── PermissionDenied        it does, and this is not for this identity, or not in this worker's name
    ├── NotFound                no such id, pool or endpoint
    ├── InvalidRequest          malformed or unknown argument (also a ValueError)
    │   └── OutOfRange          more than can ever be granted
    ├── QueueFull               too many wait or have booked; `.retry_after_s` says when to come back
    ├── DeadlineExceeded        no answer in time; whether it happened is not known
    └── Unavailable             no daemon there, or it drains or has too much to do, and retries ran out

Each carries `reason` (UPPER_SNAKE, stable; what a program looks at) and `metadata` (the parts of the
message that vary) of the daemon's google.rpc.ErrorInfo. What the client itself finds wrong has the reason
that the daemon would have given; what gRPC finds wrong has none.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from coordd_client.values import Refusal, RefusalReason

__all__ = [
    "BookingLapsed",
    "CoorddError",
    "DeadlineExceeded",
    "EscalationClosed",
    "InvalidRequest",
    "LeaseLost",
    "NotFound",
    "NotHolder",
    "NotPreemptible",
    "OutOfRange",
    "PermissionDenied",
    "QueueFull",
    "Refused",
    "RequestEnded",
    "RequestIdReused",
    "SessionTaken",
    "Superseded",
    "Unauthenticated",
    "Unavailable",
    "WaitTimeout",
]


class CoorddError(Exception):
    """Any failure of a call to coordd.

    Attributes:
        reason: stable reason, UPPER_SNAKE; empty where the daemon gave none.
        metadata: the daemon's details.
        retry_after_s: seconds after which the daemon asks to be called again; None: it did not say.
        call_id: finds the call in the daemon's log; empty where the daemon gave none.
    """

    call_id: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{super().__str__()} [{self.reason}]" if self.reason else super().__str__()


class Refused(CoorddError):
    """Not now. `refusal` says what stands in the way."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__("", reason=refusal.reason.name, retry_after_s=refusal.retry_after_s)
        self.args = (refusal,)  # as pickle rebuilds it
        self.refusal = refusal

    def __str__(self) -> str:
        refusal = self.refusal
        holder = f" (holder {refusal.holder})" if refusal.holder else ""
        after = "" if refusal.retry_after_s is None else f", retry after {refusal.retry_after_s:g} s"
        return f"{refusal.reason.name}: {refusal.subject}{holder}{after}"


class WaitTimeout(Refused):
    """The wait ended without a grant because its time passed."""


class Superseded(Refused):
    """The wait goes on elsewhere: another stream has resumed it by the same request id."""


class LeaseLost(CoorddError):
    """The lease has run out, was taken away, or could not be renewed in time. Somebody else may act now."""


class NotHolder(CoorddError):
    """Another worker holds it, or the token is not the grant's."""


class RequestEnded(CoorddError):
    """The grant of this request id is already over."""


class RequestIdReused(CoorddError):
    """The request id belongs to another request."""


class BookingLapsed(CoorddError):
    """The booking was not claimed in time, or was cancelled."""


class EscalationClosed(CoorddError):
    """The escalation is decided already, or its wait is over."""


class NotPreemptible(CoorddError):
    """There is no one holder that it could be taken from."""


class SessionTaken(CoorddError):
    """Another process of this worker's name is connected, or has taken the session over."""


class Unauthenticated(CoorddError):
    """The daemon does not know who this is."""


class PermissionDenied(CoorddError):
    """The daemon knows who this is, and does not let it."""


class NotFound(CoorddError):
    """No such id, pool or endpoint."""


class InvalidRequest(CoorddError, ValueError):
    """An argument is malformed or unknown: see `reason`."""


class OutOfRange(InvalidRequest):
    """More than can ever be granted."""


class QueueFull(CoorddError):
    """Too many wait, or too many have booked. Never retried by the client itself."""


class DeadlineExceeded(CoorddError):
    """No answer in time. Whether the daemon did it is not known."""


class Unavailable(CoorddError):
    """No daemon there, or it is draining or has too much to do. Raised once retries ran out.

    Attributes:
        pushback_s: what a `grpc-retry-pushback-ms` trailer asked for; None: nothing; negative: do not retry.
    """

    pushback_s: float | None = None


# ---- from what the wire says

_BY_REASON: Mapping[str, type[CoorddError]] = {
    "LEASE_LOST": LeaseLost,
    "NOT_HOLDER": NotHolder,
    "ESCALATION_CLOSED": EscalationClosed,
    "NOT_PREEMPTIBLE": NotPreemptible,
    "REQUEST_ENDED": RequestEnded,
    "REQUEST_ID_REUSED": RequestIdReused,
    "BOOKING_LAPSED": BookingLapsed,
    "SESSION_TAKEN": SessionTaken,
    "SESSION_SUPERSEDED": SessionTaken,
    "OVERLOADED": Unavailable,
}
_BY_CODE: Mapping[grpc.StatusCode, type[CoorddError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QueueFull,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    # What the client itself cancels never comes as a status: a daemon that stopped has ended the call.
    grpc.StatusCode.CANCELLED: Unavailable,
}
_BY_REFUSAL: Mapping[RefusalReason, type[Refused]] = {
    RefusalReason.WAIT_TIMEOUT: WaitTimeout,
    RefusalReason.SUPERSEDED: Superseded,
}


def from_refusal(refusal: Refusal) -> Refused:
    """Returns the error for a refusal."""
    return _BY_REFUSAL.get(refusal.reason, Refused)(refusal)


def from_call(call: grpc.RpcError) -> CoorddError:
    """Returns the error for a call that failed, with what its details and trailers say."""
    info, retry_after_s = _details(_status(call))
    code, message = call.code(), call.details() or call.code().name
    error = _class_of(code, info.reason, message)(
        message, reason=info.reason, metadata=info.metadata, retry_after_s=retry_after_s
    )
    if isinstance(error, Unavailable):
        error.pushback_s = _pushback_s(call)
    error.call_id = _trailer(call, "x-request-id") or ""
    return error


def raise_for(call: grpc.RpcError) -> NoReturn:
    """Raises the error for a call that failed.

    gRPC's own, a screen long, is its cause only where the daemon has not said itself what is wrong.
    """
    error = from_call(call)
    raise error from (None if error.reason else call)


def _class_of(code: grpc.StatusCode, reason: str, message: str) -> type[CoorddError]:
    if reason in _BY_REASON:
        return _BY_REASON[reason]
    # gRPC itself refuses too big a message so, without a reason, and coming back later would not help.
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not reason and "larger than max" in message:
        return InvalidRequest
    return _BY_CODE.get(code, CoorddError)


def _status(call: Any) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(call)
    except (ValueError, DecodeError):  # a proxy has rewritten the status: what is left of it must do
        return None


def _details(status: status_pb2.Status | None) -> tuple[error_details_pb2.ErrorInfo, float | None]:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details if status else ():
        detail.Unpack(info)
        detail.Unpack(retry)
    has_delay = retry.HasField("retry_delay")
    return info, retry.retry_delay.ToNanoseconds() / 1e9 if has_delay else None


def _pushback_s(call: grpc.RpcError) -> float | None:
    """Returns gRFC A6 pushback; what is not a number means, as there, that one must not retry."""
    pushback_ms = _trailer(call, "grpc-retry-pushback-ms")
    if pushback_ms is None:
        return None
    try:
        return int(pushback_ms) / 1000
    except ValueError:
        return -1.0


def _trailer(call: grpc.RpcError, name: str) -> str | None:
    """Returns a value of the trailing metadata, None if there is none of that name."""
    trailers: Any = call.trailing_metadata()
    return next((str(value) for key, value in trailers or () if key == name), None)
