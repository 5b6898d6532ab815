"""What the integration tests call: stubs over one channel, the daemon as a process, failures taken apart."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from coordd.core.limits import SECOND
from coordd.core.machine import Machine
from coordd.server import Daemon
from coordd.v1 import (
    admin_pb2_grpc,
    bundle_pb2_grpc,
    engagement_pb2,
    engagement_pb2_grpc,
    rate_limit_pb2,
    rate_limit_pb2_grpc,
    reservation_pb2,
    reservation_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)

BIN = Path(sys.executable).parent
# Every wait is over in a fraction of this; it only ends a test that hangs.
DEADLINE_S = 20

CONFIG = """
[server]
address = "{address}"
drain_timeout = "5s"
[store]
path = "{path}"
[kinds.analysis]
lock_delay = "0s"
[kinds.reply]
min_interval = "1h"
bypass_quality = 0.9
lock_delay = "1h"
[pools.small]
capacity = 3
[pools.burst]
windows = {{ "1h" = 4 }}
[types.slot]
pool = "small"
[types.burst]
pool = "burst"
[limits.post]
windows = {{ "15m" = 3, "1h" = 5 }}
[limits.brief]
windows = {{ "1s" = 2 }}
use_within = "100ms"
claim_window = "100ms"
[waits]
resume_grace = "10s"
"""


def length(seconds: float) -> Duration:
    """Return a Duration."""
    ns = round(seconds * SECOND)
    return Duration(seconds=ns // SECOND, nanos=ns % SECOND)


class Api:
    """The stubs of all services over one channel, and the calls that tests make over and over."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.engagement: Any = engagement_pb2_grpc.EngagementServiceStub(channel)
        self.reservation: Any = reservation_pb2_grpc.ReservationServiceStub(channel)
        self.rate_limit: Any = rate_limit_pb2_grpc.RateLimitServiceStub(channel)
        self.bundle: Any = bundle_pb2_grpc.BundleServiceStub(channel)
        self.session: Any = session_pb2_grpc.SessionServiceStub(channel)
        self.admin: Any = admin_pb2_grpc.AdminServiceStub(channel)

    async def lock(self, worker: str = "w1", item: str = "i", kind: str = "analysis", **more: Any) -> Any:
        """Take a lock that is free."""
        request = engagement_pb2.RequestLockRequest(item=item, worker=worker, kind=kind, **more)
        response = await self.engagement.RequestLock(request)
        assert response.HasField("granted"), response
        return response.granted

    def await_lock(self, worker: str, item: str = "i", kind: str = "analysis", **more: Any) -> Any:
        """Begin to wait for a lock."""
        request = engagement_pb2.AwaitLockRequest(item=item, worker=worker, kind=kind, **more)
        return self.engagement.AwaitLock(request, timeout=DEADLINE_S)

    async def unlock(self, lock: Any, outcome: int = engagement_pb2.OUTCOME_FAILURE) -> Any:
        """Give a lock back."""
        request = engagement_pb2.ReleaseLockRequest(
            item=lock.item, worker=lock.worker, fencing_token=lock.fencing_token, outcome=outcome
        )
        return await self.engagement.ReleaseLock(request)

    async def reserve(self, type_: str, worker: str = "w1", **more: Any) -> Any:
        """Take a reservation that can be had."""
        request = reservation_pb2.ReserveResourceRequest(type=type_, worker=worker, **more)
        response = await self.reservation.ReserveResource(request)
        assert response.HasField("granted"), response
        return response.granted

    async def permit(self, endpoint: str = "post", worker: str = "w1", **more: Any) -> Any:
        """Take a permit that can be had."""
        request = rate_limit_pb2.CanMakeRequestRequest(endpoint=endpoint, worker=worker, **more)
        response = await self.rate_limit.CanMakeRequest(request)
        assert response.HasField("granted"), response
        return response.granted

    async def connect(self, worker: str = "w1", **more: Any) -> tuple[Any, Any]:
        """Register a worker; return the stream and the answer."""
        stream = self.session.Connect(timeout=DEADLINE_S)
        register = session_pb2.Register(worker=worker, **more)
        await stream.write(session_pb2.ConnectRequest(register=register))
        answer = await stream.read()
        assert answer.HasField("registered"), answer
        return stream, answer.registered

    async def book(self, endpoint: str = "post", worker: str = "w1", **more: Any) -> Any:
        """Book a call."""
        request = rate_limit_pb2.ScheduleRequestRequest(endpoint=endpoint, worker=worker, **more)
        return await self.rate_limit.ScheduleRequest(request)


class TimeSource:
    """Gives the daemon its monotonic time; stopped, it moves only as told, however busy the machine is."""

    def __init__(self) -> None:
        self._stopped_ns: int | None = None
        self._behind_ns = 0

    def __call__(self) -> int:
        """Return the time in ns."""
        return time.monotonic_ns() - self._behind_ns if self._stopped_ns is None else self._stopped_ns

    def stop(self) -> None:
        """Let time stand still from now on."""
        self._stopped_ns = self()

    def advance(self, seconds: float) -> None:
        """Move the time that stands still. What falls due is done with the next call."""
        self._stopped_ns = self() + round(seconds * SECOND)

    def go_on(self) -> None:
        """Let time pass again, from where it stands."""
        self._behind_ns = time.monotonic_ns() - self()
        self._stopped_ns = None


@asynccontextmanager
async def nothing_changes(daemon: Daemon, time_source: TimeSource) -> AsyncIterator[None]:
    """Check that the whole state is the same after the block as before, ids given included.

    Time stands still from here on: it changes much by itself, as forecasts, leases and windows.
    """
    time_source.stop()
    before = await daemon.engine.read(_state)
    yield
    assert await daemon.engine.read(_state) == before


def _state(machine: Machine, now: int) -> tuple[object, ...]:
    # Nothing is due any more: this has the machine say what there is as of this very instant.
    machine.tick(now)
    return machine.digest(), machine.snapshot(), machine.counts()


async def refusal(call: Awaitable[Any]) -> tuple[str, str, dict[str, str]]:
    """Return code, reason and metadata of a call that fails with exactly one ErrorInfo of ours."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return failure(error)
    raise AssertionError("the call did not fail")


async def rest(stream: Any) -> AsyncIterator[Any]:
    """Read what a stream still sends."""
    while (event := await stream.read()) != grpc.aio.EOF:
        yield event


async def stream_refusal(stream: Any) -> tuple[str, str, dict[str, str]]:
    """Return code, reason and metadata of a stream that fails, whatever it sends before."""
    try:
        async for _ in rest(stream):
            pass
    except grpc.aio.AioRpcError as error:
        return failure(error)
    raise AssertionError("the stream did not fail")


def failure(error: grpc.aio.AioRpcError) -> tuple[str, str, dict[str, str]]:
    """Return code, reason and metadata of a failure that has exactly one ErrorInfo of ours."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None, error
    [info] = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    unpacked = error_details_pb2.ErrorInfo()
    info.Unpack(unpacked)
    assert unpacked.domain == "coordd"
    has_retry = any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)
    assert has_retry == (error.code().name in {"UNAVAILABLE", "RESOURCE_EXHAUSTED"})
    return error.code().name, unpacked.reason, dict(unpacked.metadata)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so; every question is a call that lets the daemon go on."""
    async with asyncio.timeout(DEADLINE_S):
        while not await is_so():
            pass


class DaemonProcess:
    """`coordd serve` as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, lines: list[str]) -> None:
        self.process = process
        self.address = address
        self.lines = lines

    @classmethod
    async def start(
        cls, config: Path, preexec: Callable[[], None] | None = None, directory: Path | None = None
    ) -> "DaemonProcess":
        """Start the daemon, with `preexec` done before within its process; return once it serves."""
        process = await launch(config, preexec, directory)
        assert process.stdout is not None
        lines = [(await process.stdout.readline()).decode() for _ in range(3)]
        if not lines[0].startswith("coordd serving on "):
            raise AssertionError((lines, (await process.communicate())[1].decode()))
        return cls(process, lines[0].split()[3], lines)

    async def stop(self, *numbers: signal.Signals) -> tuple[int, str]:
        """Send the signals, wait for the end, and return the exit code and what was on stderr."""
        for number in numbers or (signal.SIGTERM,):
            self.process.send_signal(number)
        _, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()


async def launch(
    config: Path, preexec: Callable[[], None] | None = None, directory: Path | None = None
) -> asyncio.subprocess.Process:
    """Start `coordd serve` with a configuration file, in `directory` if given."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COORDD_")}
    return await asyncio.create_subprocess_exec(
        BIN / "coordd",
        "serve",
        "--config",
        config,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        preexec_fn=preexec,
        cwd=directory,
    )
