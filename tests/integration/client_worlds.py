"""Two daemons for one table of scenarios: the real one over gRPC with its file, and the client's double.

A scenario may only use what both worlds have. Where it needs time to pass it says until what: the real world
asks again and again, the double moves its clock.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, Protocol

import grpc
from daemon_api import DEADLINE_S, Api, DaemonProcess, until

from coordd.v1 import admin_pb2
from coordd_client import Client, Config, HeldLock, HeldPermit, HeldReservation, Queued
from coordd_client.messages import Method, ReplyT, RequestT
from coordd_client.target import Target
from coordd_client.testing import InMemoryDaemon
from coordd_client.transport import Clock, GrpcTransport

Question = Callable[[], Awaitable[bool]]

# The double's arguments below say the same.
SCENARIO_CONFIG = """
[server]
address = "127.0.0.1:0"
[store]
path = "{path}"
[kinds.analysis]
lock_delay = "0s"
[kinds.reply]
min_interval = "1h"
lock_delay = "0s"
[pools.slot]
capacity = 3
[types.slot]
pool = "slot"
[limits.post]
windows = {{ "15m" = 3, "1h" = 5 }}
use_within = "10s"
claim_window = "60s"
"""

# Retries soon, so that a daemon that is back is found soon; gives up late.
PATIENT = Config(call_timeout_s=DEADLINE_S, release_timeout_s=DEADLINE_S, backoff_s=0.02, backoff_max_s=0.1)


def scenario_double() -> InMemoryDaemon:
    """The double, configured as SCENARIO_CONFIG."""
    return InMemoryDaemon(
        pools={"slot": 3},
        limits={"post": [(900, 3), (3600, 5)]},
        min_interval_s={"reply": 3600},
        use_within_s=10,
        claim_window_s=60,
    )


class World(Protocol):
    """What a scenario can do besides using clients."""

    def client(self, worker: str) -> Client:
        """Return a client that is closed at the end of the test."""
        ...

    async def until(self, is_so: Question) -> None:
        """Let time pass until it is so."""
        ...

    async def force_release(self, grant_id: int) -> None:
        """Take a lock or reservation away as an operator does."""
        ...


class RealWorld:
    """The daemon that serves at an address."""

    def __init__(self, address: str, stack: AsyncExitStack) -> None:
        self.address = address
        self._stack = stack
        self._channel = grpc.aio.insecure_channel(address)
        self.api = Api(self._channel)
        stack.push_async_callback(self._channel.close)

    def client(self, worker: str, clock: Clock | None = None) -> Client:
        return _closed_by(self._stack, Client(self.address, worker=worker, config=PATIENT, clock=clock))

    async def until(self, is_so: Question) -> None:
        async def ask() -> bool:
            # A call, so that the daemon and the clients within this process go on.
            await self.api.admin.GetStatus(admin_pb2.GetStatusRequest())
            return await is_so()

        await until(ask)

    async def force_release(self, grant_id: int) -> None:
        await self.api.admin.ForceRelease(admin_pb2.ForceReleaseRequest(id=grant_id, reason="test"))


class DoubleWorld:
    """The client's double, which forgets nothing and whose time moves by steps."""

    STEP_S = 0.02
    STEPS_MAX = 5_000

    def __init__(self, double: InMemoryDaemon, stack: AsyncExitStack) -> None:
        self._double = double
        self._stack = stack

    def client(self, worker: str) -> Client:
        return _closed_by(self._stack, self._double.client(worker, config=PATIENT))

    async def until(self, is_so: Question) -> None:
        for _ in range(self.STEPS_MAX):
            if await is_so():
                return
            await self._double.advance(self.STEP_S)
        raise AssertionError("it never came to be so")

    async def force_release(self, grant_id: int) -> None:
        self._double.force_release(grant_id)


class SteppedClock:
    """A client's time that moves by steps, so that no lease is lost to a machine that is busy."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._moved = asyncio.Event()

    def now(self) -> float:
        """See Clock."""
        return self._now_s

    async def sleep(self, duration_s: float) -> None:
        """See Clock."""
        until_s = self._now_s + duration_s
        while self._now_s < until_s:
            await self._moved.wait()

    def advance(self, duration_s: float) -> None:
        """Move on; whoever has slept long enough wakes up."""
        self._now_s += duration_s
        self._moved.set()
        self._moved = asyncio.Event()


def _closed_by(stack: AsyncExitStack, client: Client) -> Client:
    stack.push_async_callback(client.close)
    return client


class Hold:
    """A block in a task of its own: entered, then kept until told to end.

    Attributes: entered: set once it holds. places: what the wait was told, in order. names: who entered.
    left_s: the time left when it was cancelled.
    """

    def __init__(self, open_block: Callable[..., Any], *args: Any, names: Any = None, **options: Any) -> None:
        self.entered = asyncio.Event()
        self.places: list[Queued] = []
        self.held: Any = None
        self.was_cancelled = False
        self.left_s = 0.0
        self._told = asyncio.Event()
        self._ended = asyncio.Event()
        self._names = names
        block = open_block(*args, on_queued=self._queued, **options)
        self.task = asyncio.create_task(self._run(block))

    async def granted(self) -> Any:
        """Wait for the grant; return the block."""
        await self._first(self.entered.wait())
        return self.held

    async def queued(self, position: int = 0) -> Queued:
        """Wait until the last place told is this one, or until any was."""
        while not self.places or self.places[-1].position != (position or self.places[-1].position):
            self._told.clear()
            await self._first(self._told.wait())
        return self.places[-1]

    async def end(self) -> None:
        """End the block cleanly. Raises: what its end raises."""
        self._ended.set()
        async with asyncio.timeout(DEADLINE_S):
            await self.task

    async def cancel(self) -> None:
        """Cancel the block or its wait."""
        self.task.cancel()
        await asyncio.wait([self.task], timeout=DEADLINE_S)
        assert self.task.cancelled()

    async def failure(self) -> BaseException | None:
        """Wait until it has ended by itself; return what it raised."""
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([self.task])
        return self.task.exception()

    async def has_ended(self) -> bool:
        """Say whether it is over."""
        return self.task.done()

    def _queued(self, place: Queued) -> None:
        self.places.append(place)
        self._told.set()

    async def _first(self, news: Awaitable[Any]) -> None:
        waiting = asyncio.ensure_future(news)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([waiting, self.task], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            raise AssertionError("it ended before") from self.task.exception()

    async def _run(self, block: HeldLock | HeldReservation | HeldPermit) -> None:
        async with block as self.held:
            if self._names is not None:
                self._names.append(block.grant.worker)
            self.entered.set()
            try:
                await self._ended.wait()
            except asyncio.CancelledError:
                self.was_cancelled = True
                self.left_s = block.left_s
                raise


class RecordingTransport(GrpcTransport):
    """The client's own way to the daemon, which also writes down what was called."""

    def __init__(self, address: str) -> None:
        super().__init__(Target(address))
        self.paths: list[str] = []

    async def call(self, method: Method[RequestT, ReplyT], request: RequestT, timeout_s: float) -> ReplyT:
        self.paths.append(method.path)
        return await super().call(method, request, timeout_s)

    async def stream(
        self, method: Method[RequestT, ReplyT], request: RequestT, timeout_s: float
    ) -> AsyncGenerator[ReplyT, None]:
        self.paths.append(method.path)
        async with aclosing(super().stream(method, request, timeout_s)) as messages:
            async for message in messages:
                yield message


class RestartableDaemon:
    """The daemon as a process that is killed and started again, always at the same address and file."""

    def __init__(self, config: Path, process: DaemonProcess) -> None:
        self._config = config
        self._process = process
        self.address = process.address
        self.pid = process.process.pid

    @classmethod
    async def start(cls, config: Path) -> "RestartableDaemon":
        """Start it at a free port, and have the configuration say that port from now on."""
        process = await DaemonProcess.start(config)
        _set_address(config, process.address)
        return cls(config, process)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process.process.returncode is None:
            self._process.process.kill()
        await self._process.process.communicate()

    async def start_again(self) -> None:
        """Start it on what it left behind."""
        self._process = await DaemonProcess.start(self._config)
        self.pid = self._process.process.pid
        assert self._process.address == self.address


def _set_address(config: Path, address: str) -> None:
    config.write_text(config.read_text().replace("127.0.0.1:0", address))
