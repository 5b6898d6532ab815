"""SessionService: what a worker says becomes commands, what concerns it becomes messages.

Rules: what a client says is done in order, one thing after the other; its answers and what the daemon has to
tell share one stream. A client that says no more (it half-closes) is told what is still under way, and the
stream ends; its session lives on.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from coordd.core import limits, outcomes
from coordd.core.commands import OpenSession
from coordd.core.errors import InvalidArgument
from coordd.engine import Revoked, SessionStream, Word
from coordd.rpc import fields, messages
from coordd.rpc.backend import Backend
from coordd.rpc.events import name_of
from coordd.v1 import session_pb2 as pb
from coordd.v1 import session_pb2_grpc

_MILLI: Final = 1_000


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """Workers that are there."""

    def __init__(self, backend: Backend) -> None:
        self._engine = backend.engine

    async def Connect(
        self, requests: AsyncIterator[pb.ConnectRequest], context: Any
    ) -> AsyncGenerator[pb.ConnectResponse, None]:
        """See the proto."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("message") != "register":
            raise _unexpected("the first message must be `register`")
        command = _open_session(first.register)
        async with (
            self._engine.connect(command, is_taking_over=first.register.take_over) as stream,
            _reading(stream, requests),
        ):
            async for word in stream:
                yield _MESSAGES[type(word)](word, self._engine.now())


@asynccontextmanager
async def _reading(stream: SessionStream, requests: AsyncIterator[pb.ConnectRequest]) -> AsyncGenerator[None]:
    """Do what the client says while the block runs."""
    reader = asyncio.create_task(_read(stream, requests))
    try:
        yield
    finally:
        reader.cancel()
        await asyncio.wait([reader])


async def _read(stream: SessionStream, requests: AsyncIterator[pb.ConnectRequest]) -> None:
    try:
        async for request in requests:
            match request.WhichOneof("message"):
                case "keepalive":
                    await stream.keep()
                case "goodbye":
                    return await stream.close()
                case _:
                    raise _unexpected("after `register` only `keepalive` and `goodbye` may follow")
        stream.finish()
    except Exception as error:  # noqa: BLE001  -- the stream ends with it, and makes a status of it
        stream.fail(error)


def _unexpected(message: str) -> InvalidArgument:
    return InvalidArgument("UNEXPECTED_MESSAGE", message, field="message")


def _open_session(register: pb.Register) -> OpenSession:
    return OpenSession(
        worker=fields.worker(register.worker),
        session_id=fields.count("session_id", register.session_id, 0, limits.ID_MAX),
        worker_class=fields.name_filter("worker_class", register.worker_class),
        weight_milli=fields.weight_milli(register.weight),
        labels=fields.labels(register.labels),
        ttl_ns=fields.optional_ns(register, "ttl", limits.SESSION_TTL_NS_MIN, limits.SESSION_TTL_NS_MAX, 0),
    )


def _registered(opened: outcomes.SessionOpened, now: int) -> pb.ConnectResponse:
    registered = pb.Registered(
        session_id=opened.session.id,
        resumed=opened.is_resumed,
        keepalive_every=messages.duration(opened.kept.keepalive_ns),
        ttl=messages.duration(opened.session.ttl_ns),
        weight=opened.weight_milli / _MILLI,
        held=opened.kept.held,
        gates=[pb.GateChange(endpoint=gate.endpoint, gate=messages.gate(gate, now)) for gate in opened.gates],
    )
    return pb.ConnectResponse(registered=registered)


def _kept(kept: outcomes.SessionKept, now: int) -> pb.ConnectResponse:
    kept_alive = pb.KeptAlive(
        held=kept.held,
        expires_in=messages.duration(kept.first_end - now) if kept.first_end else None,
        keepalive_every=messages.duration(kept.keepalive_ns),
    )
    return pb.ConnectResponse(kept_alive=kept_alive)


def _closed(closed: outcomes.SessionClosed) -> pb.ConnectResponse:
    return pb.ConnectResponse(closed=pb.Closed(released=closed.released))


def _revoked(revoked: Revoked, now: int) -> pb.ConnectResponse:
    revocation = pb.Revocation(
        id=outcomes.grant_id(revoked.grant),
        name=name_of(revoked.grant),
        reason=pb.RevocationReason.Value(f"REVOCATION_REASON_{revoked.reason.name}"),
        within=messages.duration(revoked.at - now),
    )
    return pb.ConnectResponse(revocation=revocation)


def _expiring(expiring: outcomes.LeasesExpiring, now: int) -> pb.ConnectResponse:
    warning = pb.ExpiryWarning(
        ids=expiring.ids,
        expires_in=messages.duration(expiring.first_end - now) if expiring.first_end else None,
        session_expires_in=messages.duration(expiring.session_end - now),
    )
    return pb.ConnectResponse(expiry_warning=warning)


def _gate_changed(changed: outcomes.GateChanged, now: int) -> pb.ConnectResponse:
    gate = messages.gate(changed.gate, now)
    return pb.ConnectResponse(gate_change=pb.GateChange(endpoint=changed.gate.endpoint, gate=gate))


def _capacity_changed(changed: outcomes.CapacityChanged) -> pb.ConnectResponse:
    change = pb.CapacityChange(pool=changed.pool, before=changed.before, after=changed.after)
    return pb.ConnectResponse(capacity_change=change)


_MESSAGES: Final[Mapping[type[Word], Callable[[Any, int], pb.ConnectResponse]]] = {
    outcomes.SessionOpened: _registered,
    outcomes.SessionKept: _kept,
    outcomes.SessionClosed: lambda closed, _: _closed(closed),
    Revoked: _revoked,
    outcomes.LeasesExpiring: _expiring,
    outcomes.GateChanged: _gate_changed,
    outcomes.CapacityChanged: lambda changed, _: _capacity_changed(changed),
}
