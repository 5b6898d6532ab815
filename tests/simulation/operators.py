"""Those who look, and those who intervene."""

import asyncio
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from coordd.v1 import admin_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2
from simulation.configs import WINDOW_S
from simulation.fleet import Worker, length
from simulation.wire import CallFailed


class Operator(Worker):
    """Changes capacities and limits, takes leases by force, decides escalations, drains now and then."""

    async def run(self) -> None:
        await super().run()
        await self.ask("Drain", admin_pb2.DrainRequest(undo=True))

    async def work(self) -> None:
        await self.random.choice((self._pool, self._limit, self._force, self._decide, self._drain))()
        await self.pause(10)

    async def _pool(self) -> None:
        request = admin_pb2.UpdatePoolRequest(name="small", capacity=self.random.randint(1, 6))
        if self.chance(0.3):
            request = admin_pb2.UpdatePoolRequest(name="small", unpin=True)
        await self.ask("UpdatePool", request)

    async def _limit(self) -> None:
        window = admin_pb2.WindowLimit(window=length(WINDOW_S), limit=self.random.randint(1, 12))
        await self.ask("UpdateLimit", admin_pb2.UpdateLimitRequest(endpoint="post", windows=[window]))

    async def _force(self) -> None:
        listed = await self.ask("ListLocks", engagement_pb2.ListLocksRequest(page_size=10))
        if listed is not None and listed.locks:
            lock = self.random.choice(listed.locks)
            request = admin_pb2.ForceReleaseRequest(id=lock.fencing_token, reason="to see")
            await self.ask("ForceRelease", request)

    async def _decide(self) -> None:
        listed = await self.ask("ListEscalations", admin_pb2.ListEscalationsRequest(page_size=10))
        for escalation in listed.escalations if listed is not None else ():
            request = admin_pb2.ResolveEscalationRequest(
                escalation_id=escalation.escalation_id,
                decision=self.random.randint(1, 4),
                decided_by=self.name,
            )
            await self.ask("ResolveEscalation", request)

    async def _drain(self) -> None:
        if self.chance(0.2):
            await self.ask("Drain", admin_pb2.DrainRequest(reason="to see"))
            await self.pause(2)
            await self.ask("Drain", admin_pb2.DrainRequest(undo=True))


class Reader(Worker):
    """Asks all sorts of questions that change nothing."""

    async def work(self) -> None:
        name = self.random.choice(tuple(_QUESTIONS))
        await self.ask(name, _QUESTIONS[name](self))


class Watcher(Worker):
    """Watches events, from one break of its stream to the next."""

    async def work(self) -> None:
        try:
            call = await self.channel.open("WatchEvents")
        except CallFailed:
            return
        try:
            call.say(admin_pb2.WatchEventsRequest())
            call.half_close()
            calm = asyncio.create_task(self.world.calm.wait())
            calm.add_done_callback(lambda _: call.cancel())
            while await call.read() is not None:
                await self.pause_reading()
        except CallFailed:
            pass
        finally:
            calm.cancel()
            call.cancel()


def _item(worker: Worker) -> str:
    return f"item-{worker.random.randrange(worker.work_mix.items)}"


_QUESTIONS: dict[str, Callable[[Any], Message]] = {
    "GetLock": lambda worker: engagement_pb2.GetLockRequest(item=_item(worker)),
    "ListLocks": lambda _: engagement_pb2.ListLocksRequest(page_size=5),
    "HasRecentEngagement": lambda worker: engagement_pb2.HasRecentEngagementRequest(
        item=_item(worker), within=length(worker.random.uniform(1, 100))
    ),
    "GetEngagementStats": lambda _: engagement_pb2.GetEngagementStatsRequest(within=length(60)),
    "CheckAvailability": lambda _: reservation_pb2.CheckAvailabilityRequest(type="slot", units=1),
    "ListReservations": lambda _: reservation_pb2.ListReservationsRequest(page_size=5),
    "GetRemainingCapacity": lambda _: rate_limit_pb2.GetRemainingCapacityRequest(endpoint="post"),
    "GetWorkerAllocation": lambda worker: rate_limit_pb2.GetWorkerAllocationRequest(
        endpoint="post", worker=worker.name
    ),
    "ListWorkerAllocations": lambda _: rate_limit_pb2.ListWorkerAllocationsRequest(endpoint="search"),
    "GetSystemStatus": lambda _: rate_limit_pb2.GetSystemStatusRequest(),
    "GetStatus": lambda _: admin_pb2.GetStatusRequest(),
    "ListPools": lambda _: admin_pb2.ListPoolsRequest(),
    "ListLimits": lambda _: admin_pb2.ListLimitsRequest(),
    "ListSessions": lambda _: admin_pb2.ListSessionsRequest(),
    "ListEscalations": lambda _: admin_pb2.ListEscalationsRequest(),
}
