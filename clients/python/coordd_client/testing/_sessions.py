"""The double's sessions: a worker that is there, and keeps by one word all that it has taken since."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from coordd.v1 import engagement_pb2, session_pb2
from coordd_client.errors import CoorddError, InvalidRequest, SessionTaken
from coordd_client.messages import duration, seconds
from coordd_client.testing._forms import check
from coordd_client.testing._grants import Shared
from coordd_client.testing._locks import Locks
from coordd_client.testing._reservations import Reservations

_TTL_S_DEFAULT = 30.0
_Told = asyncio.Queue[session_pb2.ConnectResponse | CoorddError]


@dataclass
class _Open:
    session_id: int
    worker: str
    ttl_s: float
    weight: float
    ends_s: float = 0.0
    # What its stream has still to be told; None while it is not connected.
    told: _Told | None = field(default=None)


class Sessions:
    """The open sessions, by worker."""

    def __init__(self, shared: Shared, locks: Locks, reservations: Reservations) -> None:
        self._shared = shared
        self._locks = locks
        self._reservations = reservations
        self._open: dict[str, _Open] = {}

    @property
    def workers(self) -> tuple[str, ...]:
        """Whose are open."""
        return tuple(sorted(self._open))

    async def converse(
        self, requests: AsyncIterator[session_pb2.ConnectRequest]
    ) -> AsyncGenerator[session_pb2.ConnectResponse, None]:
        """Answers one stream. A stream that ends otherwise than by goodbye leaves its session open."""
        session, told = self._connect((await anext(requests)).register), _Told()
        session.told = told
        reading = asyncio.create_task(self._read(session, requests))
        try:
            while True:
                message = await told.get()
                if isinstance(message, CoorddError):
                    raise message
                yield message
                if message.HasField("closed"):
                    return
        finally:
            reading.cancel()
            if session.told is told:
                session.told = None

    def expire(self) -> None:
        """Ends what was not kept."""
        now_s = self._shared.timeline.now()
        for worker, session in list(self._open.items()):
            if session.ends_s <= now_s:
                del self._open[worker]
                if session.told is not None:
                    session.told.put_nowait(CoorddError("it was not kept in time", reason="SESSION_LOST"))

    def break_off(self, error: CoorddError) -> None:
        """Breaks every stream with `error`."""
        for session in self._open.values():
            if session.told is not None:
                session.told.put_nowait(error)

    @contextmanager
    def telling(self, reason: session_pb2.RevocationReason.ValueType) -> Iterator[None]:
        """Tells those who are connected of every lease that the block takes from them."""
        before = self._live()
        yield
        after = self._live()
        for lease_id in before.keys() - after.keys():
            worker, name = before[lease_id]
            session = self._open.get(worker)
            if session is not None and session.told is not None:
                revocation = session_pb2.Revocation(
                    id=lease_id, name=name, reason=reason, within=duration(0.0)
                )
                session.told.put_nowait(session_pb2.ConnectResponse(revocation=revocation))

    # ----

    def _connect(self, register: session_pb2.Register) -> _Open:
        check(register)
        session = self._open.get(register.worker)
        is_resumed = session is not None and session.session_id == register.session_id
        if session is not None and session.told is not None:
            if not (is_resumed or register.take_over):
                raise SessionTaken("it is connected already", reason="SESSION_TAKEN")
            session.told.put_nowait(SessionTaken("a later stream goes on", reason="SESSION_SUPERSEDED"))
        ttl_s = seconds(register.ttl) if register.HasField("ttl") else _TTL_S_DEFAULT
        if session is None or not is_resumed:
            self._shared.last_id += 1
            session = _Open(self._shared.last_id, register.worker, ttl_s, register.weight or 1.0)
            self._open[register.worker] = session
        return session

    async def _read(self, session: _Open, requests: AsyncIterator[session_pb2.ConnectRequest]) -> None:
        told = session.told
        if told is None:
            return
        told.put_nowait(session_pb2.ConnectResponse(registered=self._registered(session)))
        async for request in requests:
            match request.WhichOneof("message"):
                case "keepalive":
                    told.put_nowait(session_pb2.ConnectResponse(kept_alive=self._kept(session)))
                case "goodbye":
                    told.put_nowait(session_pb2.ConnectResponse(closed=self._closed(session)))
                case _:
                    told.put_nowait(InvalidRequest("registered already", reason="UNEXPECTED_MESSAGE"))

    def _registered(self, session: _Open) -> session_pb2.Registered:
        kept = self._kept(session)
        return session_pb2.Registered(
            session_id=session.session_id,
            keepalive_every=kept.keepalive_every,
            ttl=duration(session.ttl_s),
            weight=session.weight,
            held=kept.held,
        )

    def _kept(self, session: _Open) -> session_pb2.KeptAlive:
        timeline = self._shared.timeline
        session.ends_s = timeline.now() + session.ttl_s
        timeline.wake_at(session.ends_s)
        held = self._held(session)
        for lease in held.values():
            lease.ends_s = timeline.now() + lease.ttl_s
            timeline.wake_at(lease.ends_s)
        every_s = min([session.ttl_s, *(lease.ttl_s for lease in held.values())]) / 3
        return session_pb2.KeptAlive(held=held, keepalive_every=duration(every_s))

    def _closed(self, session: _Open) -> session_pb2.Closed:
        held = self._held(session)
        for lease_id in held:
            if self._reservations.live.pop(lease_id, None) is None:
                self._locks.end(lease_id, engagement_pb2.OUTCOME_UNKNOWN)
        if self._open.get(session.worker) is session:
            del self._open[session.worker]
        self._shared.waits.serve()
        return session_pb2.Closed(released=len(held))

    def _held(self, session: _Open) -> dict[int, Any]:
        both: Sequence[Mapping[int, Any]] = (self._locks.live, self._reservations.live)
        return {
            lease_id: lease
            for live in both
            for lease_id, lease in live.items()
            if lease.worker == session.worker and lease_id > session.session_id
        }

    def _live(self) -> dict[int, tuple[str, str]]:
        locks = {lock_id: (lock.worker, lock.item) for lock_id, lock in self._locks.live.items()}
        reservations = {
            reservation_id: (
                held.worker,
                f"{held.type}/{held.resource_id}" if held.resource_id else held.type,
            )
            for reservation_id, held in self._reservations.live.items()
        }
        return {**locks, **reservations}
