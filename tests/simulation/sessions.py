"""A worker's session: a stream that is kept, breaks, and is taken up again, while the worker works.

Rules: what is said is answered in order. A session that breaks is resumed by its id, mostly.
"""

import asyncio
from collections import deque
from typing import Any

from audit.history import Revoked

from coordd.v1 import session_pb2 as pb
from simulation.fleet import Worker, length
from simulation.history import close
from simulation.loop import SECOND
from simulation.wire import Call, CallFailed


class Session:
    """One worker's session, until all is calm."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._id = 0
        self._every_s = 1.0
        self._unanswered: deque[Any] = deque()

    async def run(self) -> None:
        """Keep it, with all that breaks meanwhile."""
        worker = self._worker
        while not worker.world.is_calm:
            try:
                await self._stream()
            except CallFailed as error:
                if error.reason == "SESSION_LOST":
                    self._id = 0
            while self._unanswered:
                self._unanswered.popleft().lost()
            await worker.pause(1.0)

    async def _stream(self) -> None:
        worker = self._worker
        call = await worker.channel.open("Connect")
        try:
            self._say(call, pb.ConnectRequest(register=self._register()))
            while not worker.world.is_calm:
                try:
                    async with asyncio.timeout(self._every_s):
                        message = await call.read()
                    if message is None:
                        return
                    self._hear(message)
                except TimeoutError:
                    # One that says nothing for a while is late, and then lost.
                    if not worker.chance(0.1):
                        self._say(call, pb.ConnectRequest(keepalive=pb.Keepalive()))
                    if worker.chance(0.02):
                        await self._leave(call)
                        return
            await self._leave(call)
        except CallFailed as error:
            # One status ends all that was said on the stream.
            while self._unanswered:
                close(self._unanswered.popleft(), error)
            raise
        finally:
            call.cancel()

    def _register(self) -> pb.Register:
        worker = self._worker
        register = pb.Register(worker=worker.name, session_id=self._id if worker.chance(0.9) else 0)
        register.take_over = worker.chance(0.5)
        if worker.chance(0.5):
            register.ttl.CopyFrom(length(1 + worker.random.expovariate(1.0) * worker.work_mix.ttl_s))
        return register

    async def _leave(self, call: Call) -> None:
        self._say(call, pb.ConnectRequest(goodbye=pb.Goodbye()))
        call.half_close()
        while (message := await call.read()) is not None:
            self._hear(message)
        self._id = 0

    def _say(self, call: Call, request: pb.ConnectRequest) -> None:
        worker = self._worker
        sort = request.WhichOneof("message")
        message = getattr(request, sort)
        record = worker.world.record.asked(worker.name, sort.capitalize(), message, session=self._id)
        self._unanswered.append(record)
        call.say(request)

    def _hear(self, message: Any) -> None:
        sort = message.WhichOneof("message")
        said = getattr(message, sort)
        if sort == "registered":
            self._id = said.session_id
        if sort in {"registered", "kept_alive"}:
            self._every_s = said.keepalive_every.ToNanoseconds() / SECOND
        if sort in {"registered", "kept_alive", "closed"}:
            self._unanswered.popleft().told(said)
        elif sort == "revocation":
            world = self._worker.world
            reason = pb.RevocationReason.Name(said.reason).removeprefix("REVOCATION_REASON_")
            world.record.add(
                Revoked(
                    at=world.loop.now_ns,
                    worker=self._worker.name,
                    id=said.id,
                    reason=reason,
                    within_ns=said.within.ToNanoseconds(),
                )
            )
