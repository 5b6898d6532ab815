"""A worker's session, as messages: SessionService without I/O."""

from collections.abc import Mapping

from coordd.v1 import session_pb2 as pb
from coordd_client import arguments
from coordd_client.messages import Method, optional_duration, optional_seconds, seconds
from coordd_client.permits import read_gate
from coordd_client.values import (
    CapacityChanged,
    GateChanged,
    LeasesExpiring,
    RevocationReason,
    Revoked,
    SessionEvent,
)

CONNECT = Method("/coordd.v1.SessionService/Connect", pb.ConnectRequest, pb.ConnectResponse)

KEEPALIVE = pb.ConnectRequest(keepalive=pb.Keepalive())
GOODBYE = pb.ConnectRequest(goodbye=pb.Goodbye())


def register(
    worker: str,
    *,
    worker_class: str,
    weight: float | None,
    labels: Mapping[str, str] | None,
    ttl: float | None,
    take_over: bool,
) -> pb.Register:
    """Returns who a worker is. Raises: TypeError, InvalidRequest."""
    return pb.Register(
        worker=worker,
        worker_class=arguments.text("worker_class", worker_class),
        weight=arguments.weight(weight) or 0.0,
        labels=dict(arguments.pairs("labels", labels or {})),
        ttl=optional_duration("ttl", ttl),
        take_over=take_over,
    )


def resuming(registration: pb.Register, session_id: int) -> pb.ConnectRequest:
    """Returns the first message of a stream that goes on with a session; 0: that begins one."""
    request = pb.ConnectRequest(register=registration)
    if session_id:
        request.register.session_id = session_id
        # Ours is ours by its id; what somebody else has opened meanwhile is not to be ended.
        request.register.take_over = False
    return request


def event(message: pb.ConnectResponse) -> SessionEvent | None:
    """Reads what the daemon tells of itself; None for an answer, and for what a newer daemon tells."""
    match message.WhichOneof("message"):
        case "revocation":
            return _revoked(message.revocation)
        case "expiry_warning":
            return _expiring(message.expiry_warning)
        case "gate_change":
            return gate_changed(message.gate_change)
        case "capacity_change":
            change = message.capacity_change
            return CapacityChanged(pool=change.pool, before=change.before, after=change.after)
    return None


def _revoked(message: pb.Revocation) -> Revoked:
    return Revoked(
        grant_id=message.id,
        name=message.name,
        reason=RevocationReason(message.reason),
        within_s=seconds(message.within),
    )


def _expiring(message: pb.ExpiryWarning) -> LeasesExpiring:
    return LeasesExpiring(
        grant_ids=tuple(message.ids),
        expires_in_s=optional_seconds(message, "expires_in"),
        session_expires_in_s=seconds(message.session_expires_in),
    )


def gate_changed(message: pb.GateChange) -> GateChanged:
    """Reads an endpoint's gate."""
    return GateChanged(endpoint=message.endpoint, gate=read_gate(message.gate))
