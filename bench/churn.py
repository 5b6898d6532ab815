"""A load in which everything is new all the time: what `bench.soak` lets the daemon live with.

Each of some coroutines is one worker after another, with a name and a connection of its own, that does a few
things in turn, some of them badly: waits that nobody waits for to the end, sessions without a goodbye,
leases that run out. Its choices come from a seed.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from types import TracebackType
from typing import Any, Final, Self

import grpc
from google.protobuf.duration_pb2 import Duration

from coordd.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    bundle_pb2,
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

_WORKERS: Final = 24
_DEEDS_PER_WORKER: Final = 30
_PAUSE_S: Final = 0.02
_DEADLINE_S: Final = 20.0
# Asked for by many at once, so that there is somebody to wait for.
_POPULAR: Final = 6


class Churn:
    """The load, while it is entered. `done`: how often each thing was done, and each failure's reason met."""

    def __init__(self, address: str, seed: int = 1) -> None:
        self._address = address
        self._random = Random(seed)
        self._numbers = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []
        self.done: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._live()) for _ in range(_WORKERS)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        broken = [each for each in ended if not isinstance(each, asyncio.CancelledError)]
        if broken and error is None:
            raise RuntimeError("the load itself broke") from next(e for e in broken if e is not None)

    async def _live(self) -> None:
        while True:
            async with grpc.aio.insecure_channel(
                self._address, options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                worker = _Worker(f"w{next(self._numbers)}", channel, self._numbers, self._random)
                for _ in range(_DEEDS_PER_WORKER):
                    await self._do(self._random.choice(worker.deeds))

    async def _do(self, deed: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await deed()
            self.done[deed.__name__] += 1
        except grpc.aio.AioRpcError as error:
            self.done[f"{deed.__name__}: {error.code().name}"] += 1
        await asyncio.sleep(_PAUSE_S)


class _Worker:
    """One worker over one connection, and what it can do."""

    def __init__(
        self, name: str, channel: grpc.aio.Channel, numbers: "itertools.count[int]", random: Random
    ) -> None:
        self._name = name
        self._numbers = numbers
        self._random = random
        self._engagement: Any = engagement_pb2_grpc.EngagementServiceStub(channel)
        self._reservation: Any = reservation_pb2_grpc.ReservationServiceStub(channel)
        self._rate_limit: Any = rate_limit_pb2_grpc.RateLimitServiceStub(channel)
        self._bundle: Any = bundle_pb2_grpc.BundleServiceStub(channel)
        self._session: Any = session_pb2_grpc.SessionServiceStub(channel)
        self._admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
        self.deeds: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self.lock_and_release,
            self.lock_renew_and_release,
            self.lock_and_forget,
            self.wait_and_release,
            self.wait_in_vain,
            self.wait_and_leave,
            self.wait_for_a_slot,
            self.reserve_and_release,
            self.permit_and_report,
            self.permit_and_forget,
            self.book_and_cancel,
            self.bundle,
            self.session_with_goodbye,
            self.session_without,
            self.watch_and_leave,
            self.ask,
            self.ask_nonsense,
        ]

    # -- locks -----------------------------------------------------------------------------------------------

    async def lock_and_release(self) -> None:
        """Act on an item nobody has heard of."""
        await self._release(await self._lock(self._new("item")))

    async def lock_renew_and_release(self) -> None:
        """The same, with a renewal."""
        lock = await self._lock(self._new("item"))
        request = engagement_pb2.RenewLockRequest(
            item=lock.item, worker=self._name, fencing_token=lock.fencing_token
        )
        await self._engagement.RenewLock(request, timeout=_DEADLINE_S)
        await self._release(lock)

    async def lock_and_forget(self) -> None:
        """Let a lease run out."""
        await self._lock(self._new("item"), ttl=_length(1))

    async def wait_and_release(self) -> None:
        """Wait for an item that others want, too."""
        async for event in self._wait(self._popular(), wait_s=5):
            if event.HasField("granted"):
                await self._release(event.granted)

    async def wait_in_vain(self) -> None:
        """Let a wait time out."""
        item = self._new("item")
        lock = await self._lock(item)
        async for _ in self._wait(item, wait_s=0.3):
            pass
        await self._release(lock)

    async def wait_and_leave(self) -> None:
        """Cancel a wait once it is queued; half of them could come back."""
        item = self._new("item")
        lock = await self._lock(item)
        call = self._wait(item, wait_s=30, request_id=self._random.choice(("", self._new("r"))))
        await call.read()
        call.cancel()
        await self._release(lock)

    # -- the rest --------------------------------------------------------------------------------------------

    async def wait_for_a_slot(self) -> None:
        """Wait for units of a pool, and give them back."""
        request = reservation_pb2.AwaitReservationRequest(
            type="slot",
            worker=self._name,
            units=self._random.randint(1, 8),
            wait_timeout=_length(2),
            request_id=self._new("r"),
        )
        async for event in self._reservation.AwaitReservation(request, timeout=_DEADLINE_S):
            if event.HasField("granted"):
                await self._give_back(event.granted.reservation_id)

    async def reserve_and_release(self) -> None:
        """Reserve a resource of a new name."""
        request = reservation_pb2.ReserveResourceRequest(
            type="db_connection", resource_id=self._new("db"), worker=self._name
        )
        reply = await self._reservation.ReserveResource(request, timeout=_DEADLINE_S)
        if reply.HasField("granted"):
            await self._give_back(reply.granted.reservation_id)

    async def permit_and_report(self) -> None:
        """Take a permit and say what became of the call."""
        granted = await self._permit()
        if granted is not None:
            request = rate_limit_pb2.RecordUsageRequest(
                endpoint="post",
                permit_id=granted.permit_id,
                worker=self._name,
                result=rate_limit_pb2.USAGE_RESULT_SUCCESS,
            )
            await self._rate_limit.RecordUsage(request, timeout=_DEADLINE_S)

    async def permit_and_forget(self) -> None:
        """Take a permit and say nothing."""
        await self._permit()

    async def book_and_cancel(self) -> None:
        """Book a call, and think better of it."""
        request = rate_limit_pb2.ScheduleRequestRequest(
            endpoint="post", worker=self._name, request_id=self._new("r")
        )
        reply = await self._rate_limit.ScheduleRequest(request, timeout=_DEADLINE_S)
        cancel = rate_limit_pb2.CancelScheduleRequest(booking_id=reply.booking_id, worker=self._name)
        await self._rate_limit.CancelSchedule(cancel, timeout=_DEADLINE_S)

    async def bundle(self) -> None:
        """Take several things at once, and give all of them back."""
        request = bundle_pb2.AwaitBundleRequest(
            worker=self._name,
            request_id=self._new("r"),
            wait_timeout=_length(2),
            claims=[
                bundle_pb2.Claim(lock=bundle_pb2.LockClaim(item=self._popular(), kind="analysis")),
                bundle_pb2.Claim(reservation=bundle_pb2.ReservationClaim(type="slot")),
            ],
        )
        async for event in self._bundle.AwaitBundle(request, timeout=_DEADLINE_S):
            if event.HasField("granted"):
                release = bundle_pb2.ReleaseBundleRequest(
                    bundle_id=event.granted.bundle_id,
                    worker=self._name,
                    outcome=engagement_pb2.OUTCOME_SUCCESS,
                )
                await self._bundle.ReleaseBundle(release, timeout=_DEADLINE_S)

    async def session_with_goodbye(self) -> None:
        """Open a session, hold something in it, keep it, and say goodbye."""
        call = await self._open_session()
        await self._lock(self._new("item"))
        await call.write(session_pb2.ConnectRequest(keepalive=session_pb2.Keepalive()))
        await call.read()
        await call.write(session_pb2.ConnectRequest(goodbye=session_pb2.Goodbye()))
        while await call.read() is not grpc.aio.EOF:
            pass

    async def session_without(self) -> None:
        """Open a session, hold something in it, and be gone."""
        call = await self._open_session()
        await self._lock(self._new("item"))
        call.cancel()

    async def watch_and_leave(self) -> None:
        """Watch what happens for a moment."""
        call = self._admin.WatchEvents(admin_pb2.WatchEventsRequest(), timeout=_DEADLINE_S)
        await self.lock_and_release()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call.read()

    async def ask(self) -> None:
        """Ask how things are."""
        await self._admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=_DEADLINE_S)
        await self._engagement.GetLock(
            engagement_pb2.GetLockRequest(item=self._popular()), timeout=_DEADLINE_S
        )

    async def ask_nonsense(self) -> None:
        """Be refused."""
        await self._engagement.GetLock(engagement_pb2.GetLockRequest(item=""), timeout=_DEADLINE_S)

    # --------------------------------------------------------------------------------------------------------

    def _new(self, what: str) -> str:
        return f"{what}-{next(self._numbers)}"

    def _popular(self) -> str:
        return f"popular-{self._random.randrange(_POPULAR)}"

    async def _lock(self, item: str, **more: Any) -> Any:
        request = engagement_pb2.RequestLockRequest(
            item=item,
            worker=self._name,
            kind=self._random.choice(("analysis", "probe")),
            request_id=self._new("r"),
            **more,
        )
        return (await self._engagement.RequestLock(request, timeout=_DEADLINE_S)).granted

    def _wait(self, item: str, wait_s: float, **more: Any) -> Any:
        request = engagement_pb2.AwaitLockRequest(
            item=item, worker=self._name, kind="analysis", wait_timeout=_length(wait_s), **more
        )
        return self._engagement.AwaitLock(request, timeout=_DEADLINE_S)

    async def _release(self, lock: Any) -> None:
        request = engagement_pb2.ReleaseLockRequest(
            item=lock.item,
            worker=self._name,
            fencing_token=lock.fencing_token,
            outcome=self._random.choice((engagement_pb2.OUTCOME_SUCCESS, engagement_pb2.OUTCOME_FAILURE)),
        )
        await self._engagement.ReleaseLock(request, timeout=_DEADLINE_S)

    async def _give_back(self, reservation_id: int) -> None:
        request = reservation_pb2.ReleaseResourceRequest(reservation_id=reservation_id, worker=self._name)
        await self._reservation.ReleaseResource(request, timeout=_DEADLINE_S)

    async def _permit(self) -> Any:
        request = rate_limit_pb2.CanMakeRequestRequest(
            endpoint="post", worker=self._name, request_id=self._new("r")
        )
        reply = await self._rate_limit.CanMakeRequest(request, timeout=_DEADLINE_S)
        return reply.granted if reply.HasField("granted") else None

    async def _open_session(self) -> Any:
        call = self._session.Connect(timeout=_DEADLINE_S)
        register = session_pb2.Register(worker=self._name, take_over=True)
        await call.write(session_pb2.ConnectRequest(register=register))
        await call.read()
        return call


def _length(seconds: float) -> Duration:
    ns = round(seconds * 1e9)
    return Duration(seconds=ns // 10**9, nanos=ns % 10**9)
