"""What the fleet asks and is told, as a history for the judges of `tests/audit`.

Owns: the way from real stubs, a real process and a real file to a history; its clock is `time.monotonic_ns`.
Rule: an UNAVAILABLE of gRPC's own says nothing of what became of the call.
"""

import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import grpc
from audit import history as h
from audit.judge import audit
from audit.recorder import Call, Recorder
from audit.violation import Violation
from crash_daemon import Daemon
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from coordd.config import load
from coordd.v1 import admin_pb2

_OUTCOMES: Final = {1: "SUCCESS", 2: "FAILURE", 3: "UNKNOWN"}


class Recorded:
    """A service's stub whose calls are written down, each attempt as one."""

    def __init__(self, stub: Any, recorder: Recorder) -> None:
        self._stub = stub
        self._recorder = recorder

    def __getattr__(self, method: str) -> Callable[[Any], Any]:
        behaviour = getattr(self._stub, method)
        is_stream = isinstance(behaviour, grpc.aio.UnaryStreamMultiCallable)
        recorded = self._streamed if is_stream else self._answered
        return lambda request: recorded(behaviour, self._recorder.call(method, request), request)

    async def _answered(self, behaviour: Any, call: Call, request: Any) -> Any:
        try:
            answer = await behaviour(request)
        except grpc.aio.AioRpcError as error:
            _fail(call, error)
            raise
        finally:
            call.lost()
        call.told(answer)
        return answer

    async def _streamed(self, behaviour: Any, call: Call, request: Any) -> AsyncIterator[Any]:
        try:
            async for message in behaviour(request):
                call.told(message)
                yield message
        except grpc.aio.AioRpcError as error:
            _fail(call, error)
            raise
        finally:
            call.lost()


def _fail(call: Call, error: grpc.aio.AioRpcError) -> None:
    reason = _reason(error)
    if reason or error.code() is not grpc.StatusCode.UNAVAILABLE:
        call.failed(error.code().name, reason)
    else:
        call.lost()


def _reason(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return info.reason
    return ""


def violations(recorder: Recorder, daemon: Daemon) -> list[Violation]:
    """Return what can not be true together of what the fleet was told, the daemon's runs and its file."""
    world = h.world(load(daemon.config, {}).model_dump())
    starts = [h.Started(at=at, world=world) for at in daemon.starts]
    ends = [h.Ended(at=at) for at in daemon.ends]
    entries = [*recorder.history().entries, *starts, *ends]
    return audit(h.History(entries))


def held(path: Path, *, but: str = "") -> h.Dumped:
    """Return what is held, as the file says now that no daemon runs. `but`: a worker who is left out."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        locks = connection.execute(
            "SELECT item, kind, worker, token, granted_at, expires_at FROM locks WHERE worker <> ?", (but,)
        )
        reservations = connection.execute(
            "SELECT type, worker, id, granted_at, expires_at, resource_id, pool, units FROM reservations"
        )
        return h.Dumped(
            at=time.monotonic_ns(),
            locks=[h.Lock(*row) for row in locks],
            reservations=[h.Reservation(*row) for row in reservations],
        )


async def settled(stubs: Any) -> tuple[int, int]:
    """Let the daemon do all that is due; return an instant by which it was, and the daemon's own."""
    at = time.monotonic_ns()
    status = await stubs.admin.GetStatus(admin_pb2.GetStatusRequest())
    return at, status.now.ToNanoseconds()


def engaged(path: Path, at: int, daemon_at: int) -> h.Dumped:
    """Return the history of engagements as it was at an instant, from the file as it is now."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        query = "SELECT item, kind, worker, outcome, at, token FROM engagements WHERE at <= ?"
        rows = connection.execute(query, (daemon_at,)).fetchall()
    entries = [
        h.Engagement(item, kind, worker, _OUTCOMES[outcome], ended_at, token)
        for item, kind, worker, outcome, ended_at, token in rows
    ]
    return h.Dumped(at=at, engagements=entries)
