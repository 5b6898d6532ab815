"""A fleet of clients that outlives its daemon, and what it writes down of what it was told.

Rules: a client repeats a call whose answer it never got, with the same request id, as the contract wants. It
believes what was acknowledged, and nothing else. Instants are `time.monotonic()` unless they say otherwise.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc
from audit import history as h
from audit.recorder import Recorder
from crash_daemon import KIND
from crash_history import Recorded
from google.protobuf.duration_pb2 import Duration

from coordd.v1 import (
    admin_pb2_grpc,
    bundle_pb2_grpc,
    engagement_pb2,
    engagement_pb2_grpc,
    rate_limit_pb2,
    rate_limit_pb2_grpc,
    reservation_pb2,
    reservation_pb2_grpc,
)


def duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9))


@dataclass
class Held:
    """Something granted. `asked_at`: before the first try. `told_at`: when the answer came."""

    id: int
    subject: str
    worker: str
    request_id: str
    asked_at: float
    told_at: float
    ttl_s: float
    # When the holder began to give it back, and when that was acknowledged; None: it has not.
    returning_at: float | None = None
    returned_at: float | None = None
    outcome: int = 0

    def surely_until(self) -> float:
        """Until when nobody else can lawfully have it."""
        lease_end = self.asked_at + self.ttl_s
        return lease_end if self.returning_at is None else min(lease_end, self.returning_at)


@dataclass
class Journal:
    """All that the fleet was told."""

    locks: list[Held] = field(default_factory=list)
    slots: list[Held] = field(default_factory=list)
    # (id, asked at, told at) of every grant of any sort.
    ids: list[tuple[int, float, float]] = field(default_factory=list)
    # When a permit was used, wall clock in ns, as an upstream would see it.
    uses: list[int] = field(default_factory=list)
    # (worker, request id) of what was refused.
    refused: list[tuple[str, str]] = field(default_factory=list)
    repeats: int = 0


class Stubs:
    """The services over one channel. `recorder`: writes down what is asked and answered."""

    def __init__(self, channel: grpc.aio.Channel, recorder: Recorder | None = None) -> None:
        stubs: list[Any] = [
            engagement_pb2_grpc.EngagementServiceStub(channel),
            reservation_pb2_grpc.ReservationServiceStub(channel),
            rate_limit_pb2_grpc.RateLimitServiceStub(channel),
            bundle_pb2_grpc.BundleServiceStub(channel),
        ]
        if recorder is not None:
            stubs = [Recorded(stub, recorder) for stub in stubs]
        self.engagement, self.reservation, self.rate_limit, self.bundle = stubs
        self.admin: Any = admin_pb2_grpc.AdminServiceStub(channel)


class Fleet:
    """The clients. They call between `go_on` and `disconnect`."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.journal = Journal()
        self.recorder = Recorder(time.monotonic_ns)
        self._request_ids = itertools.count(1)
        self._channels: list[grpc.aio.Channel] = []
        self.stubs: Stubs | None = None
        self._connected = asyncio.Event()
        self._may_lose_it = self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    # -- the wire --------------------------------------------------------------------------------------------

    def connect(self, address: str) -> None:
        """Make ready to call the daemon at `address`; nobody but the caller calls before `go_on`."""
        self._channels.append(grpc.aio.insecure_channel(address))
        self.stubs = Stubs(self._channels[-1], self.recorder)
        self._may_lose_it = False

    def go_on(self) -> None:
        """Let everybody call."""
        self._connected.set()

    def disconnect(self) -> None:
        """Let nobody call: the daemon is about to go. Calls under way see it go."""
        self._connected.clear()

    def expect_end(self) -> None:
        """Take it that the daemon goes at any time from now on; whoever sees it go calls no more."""
        self._may_lose_it = True

    async def forget(self) -> None:
        """Wait until all calls to the daemon that has gone have ended, and close the way to it."""
        await self._channels.pop().close(grace=10)

    async def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

    async def call(self, attempt: Callable[[Stubs], Awaitable[Any]]) -> Any:
        """Return the answer of `attempt`, made again as often as the daemon goes away under it."""
        for tries in itertools.count():
            await self._connected.wait()
            stubs = self.stubs
            assert stubs is not None
            try:
                return await attempt(stubs)
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                if self._may_lose_it and stubs is self.stubs:
                    self.disconnect()
                is_killed = stubs is not self.stubs or not self._connected.is_set()
                assert is_killed, "the daemon went away by itself"
            self.journal.repeats += tries == 0
        raise AssertionError

    def request_id(self) -> str:
        """Return a new one."""
        return f"r{next(self._request_ids)}"

    # -- the fleet -------------------------------------------------------------------------------------------

    def start(self, clients: int = 18) -> None:
        """Set so many to work."""
        jobs = itertools.cycle([self._lock] * 2 + [self._use_permit, self._hold_slot])
        self._tasks = [
            asyncio.create_task(self._work(f"w{index}", next(jobs))) for index in range(1, clients + 1)
        ]

    async def stop(self) -> None:
        """Let everybody end what they are at; raise what went wrong."""
        self._is_stopping = True
        await asyncio.gather(*self._tasks)

    def check(self) -> None:
        """Raise what has gone wrong so far."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _work(self, worker: str, job: Callable[[str], Awaitable[None]]) -> None:
        while not self._is_stopping:
            await job(worker)

    async def _pause(self, seconds_max: float) -> None:
        """Work, as it were."""
        await asyncio.sleep(self.random.uniform(0, seconds_max))

    # -- locks -----------------------------------------------------------------------------------------------

    async def _lock(self, worker: str) -> None:
        chance = self.random.random()
        if chance < 0.05:
            # Kept to the end, through every crash.
            await self.take_lock(worker, f"kept:{self.request_id()}", ttl_s=600)
        elif chance < 0.10:
            # Forgotten: its lease runs out.
            await self.take_lock(worker, f"item:{self.random.randrange(10)}", ttl_s=0.2)
        else:
            held = await self.take_lock(worker, f"item:{self.random.randrange(10)}", ttl_s=600)
            await self._pause(0.01)
            if held is not None:
                await self.release_lock(held)

    async def take_lock(
        self, worker: str, item: str, *, ttl_s: float, wait_s: float | None = None
    ) -> Held | None:
        """Ask for a lock; wait for it, so long or one time in two."""
        asked_at, request_id = time.monotonic(), self.request_id()
        values = {"item": item, "worker": worker, "kind": KIND, "request_id": request_id}
        if wait_s or self.random.random() < 0.5:
            wait = engagement_pb2.AwaitLockRequest(
                **values, ttl=duration(ttl_s), wait_timeout=duration(wait_s or self.random.uniform(0.01, 2))
            )
            result = await self._ask(
                lambda stubs: last(stubs.engagement.AwaitLock(wait)), ttl_s, (worker, request_id)
            )
        else:
            request = engagement_pb2.RequestLockRequest(**values, ttl=duration(ttl_s))
            result = await self._ask(
                lambda stubs: stubs.engagement.RequestLock(request), ttl_s, (worker, request_id)
            )
        if result is None:
            return None
        lock = result.granted
        held = Held(lock.fencing_token, item, worker, request_id, asked_at, time.monotonic(), ttl_s)
        self.journal.locks.append(held)
        self._note(held)
        return held

    async def release_lock(self, held: Held) -> None:
        """Give a lock back, with an outcome."""
        held.outcome = self.random.choice((1, 2))
        held.returning_at = time.monotonic()
        request = engagement_pb2.ReleaseLockRequest(
            item=held.subject, worker=held.worker, fencing_token=held.id, outcome=held.outcome
        )
        reply = await self.call(lambda stubs: stubs.engagement.ReleaseLock(request))
        assert reply.engagement.outcome == held.outcome
        held.returned_at = time.monotonic()

    async def _ask(
        self, attempt: Callable[[Stubs], Awaitable[Any]], ttl_s: float, request: tuple[str, str]
    ) -> Any:
        """Return the answer if it is a grant, else None.

        One that was given for a moment only may be over when its answer has been lost and is asked for again.
        """
        try:
            result = await self.call(attempt)
        except grpc.aio.AioRpcError as error:
            if ttl_s > 1 or error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                raise
            return None
        if result.HasField("granted"):
            return result
        self.journal.refused.append(request)
        return None

    def _note(self, held: Held) -> None:
        self.journal.ids.append((held.id, held.asked_at, held.told_at))

    # -- units of a pool -------------------------------------------------------------------------------------

    async def _hold_slot(self, worker: str) -> None:
        asked_at, request_id = time.monotonic(), self.request_id()
        wait = reservation_pb2.AwaitReservationRequest(
            type="slot", worker=worker, units=1, request_id=request_id, wait_timeout=duration(5)
        )
        result = await self._ask(
            lambda stubs: last(stubs.reservation.AwaitReservation(wait)), 600, (worker, request_id)
        )
        if result is None:
            return
        name = result.granted.reservation_id
        held = Held(name, "small", worker, request_id, asked_at, time.monotonic(), 600)
        self.journal.slots.append(held)
        self._note(held)
        await self._pause(0.01)
        held.returning_at = time.monotonic()
        release = reservation_pb2.ReleaseResourceRequest(reservation_id=name, worker=worker)
        await self.call(lambda stubs: stubs.reservation.ReleaseResource(release))
        held.returned_at = time.monotonic()

    # -- permits ---------------------------------------------------------------------------------------------

    async def _use_permit(self, worker: str) -> None:
        asked_at, request_id = time.monotonic(), self.request_id()
        request = rate_limit_pb2.CanMakeRequestRequest(endpoint="post", worker=worker, request_id=request_id)
        reply = await self._ask(
            lambda stubs: stubs.rate_limit.CanMakeRequest(request), 0.5, (worker, request_id)
        )
        if reply is None:
            await self._pause(0.05)
            return
        permit = reply.granted
        self.journal.ids.append((permit.permit_id, asked_at, time.monotonic()))
        await self._pause(0.02)
        used_at = time.time_ns()
        is_used = used_at < permit.use_by.ToNanoseconds() and self.random.random() < 0.9
        if is_used:
            self.journal.uses.append(used_at)
            self.recorder.add(h.Arrived(time.monotonic_ns(), "post", permit.permit_id))
        if self.random.random() < 0.9:
            report = rate_limit_pb2.RecordUsageRequest(
                endpoint="post",
                worker=worker,
                permit_id=permit.permit_id,
                result=rate_limit_pb2.USAGE_RESULT_SUCCESS
                if is_used
                else rate_limit_pb2.USAGE_RESULT_NOT_SENT,
            )
            await self.call(lambda stubs: stubs.rate_limit.RecordUsage(report))


async def last(stream: AsyncIterator[Any]) -> Any:
    """Return a wait stream's last message."""
    message = None
    async for message in stream:
        if not message.HasField("queued"):
            return message
    raise AssertionError(f"the stream ended with {message}")
