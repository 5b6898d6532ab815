"""The end of a seed, with the faults off: everybody is answered, queues are empty, and all comes free.

Rules: what is left in the daemon and in its file is written down for the judges, when nobody else is asking.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, Final

from audit import history as to
from audit import recorder
from google.protobuf import text_format

from coordd.v1 import admin_pb2, common_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2
from simulation.crew import Crew
from simulation.fleet import Worker, World, length
from simulation.host import Host

# The first is longer than anything takes that is left of the faults. The others are longer than any wait, any
# grace of one that is away, and any window or lease.
_CALM_AFTER_S: Final = 40
_ANSWERED_S: Final = 600
_EMPTY_S: Final = 120
_FREE_S: Final = 4000
# Bookings keep their room as far ahead as they may lie, and then until the windows have rolled on.
_UNBOOKED_S: Final = 24 * 3600
_PAGE: Final = 1_000
_OUTCOMES: Final = {1: "SUCCESS", 2: "FAILURE", 3: "UNKNOWN"}


class Peace:
    """The end."""

    def __init__(self, world: World, crew: Crew, host: Host, path: Path) -> None:
        self._world = world
        self._crew = crew
        self._host = host
        self._path = path
        # The last worker there is.
        self._closer = Worker(world, "closer", 1, Random("closer"))
        self._seen: Any = None

    async def come(self) -> list[str]:
        """Let it come; return what was not as it should be."""
        world = self._world
        world.wire.is_faulty = False
        # By then it is there again, and who hangs on a connection that is gone has found out.
        await asyncio.sleep(_CALM_AFTER_S)
        world.is_calm = True
        world.calm.set()
        world.record.add(to.Calmed(at=world.loop.now_ns))
        wrong = await self._crew.end(_ANSWERED_S)
        if wrong:
            return wrong
        wrong = await self._wind_up()
        await self._host.end()
        return wrong + self._check_file()

    async def _wind_up(self) -> list[str]:
        try:
            async with asyncio.timeout(_EMPTY_S):
                await self._until(lambda status: not (status.waiters or status.escalations))
            await self._dump()
            async with asyncio.timeout(_FREE_S):
                await self._until(lambda status: not (status.locks or status.reservations))
        except TimeoutError:
            return [f"something is left: {text_format.MessageToString(self._seen, as_one_line=True)}"]
        return [wrong async for wrong in self._not_free()]

    async def _ask(self, name: str, request: Any) -> Any:
        answer = await self._closer.ask(name, request)
        assert answer is not None, f"{name} failed in peace"
        return answer

    async def _until(self, is_so: Callable[[Any], bool]) -> None:
        self._seen = await self._ask("GetStatus", admin_pb2.GetStatusRequest())
        while not is_so(self._seen):
            await asyncio.sleep(5)
            self._seen = await self._ask("GetStatus", admin_pb2.GetStatusRequest())

    async def _not_free(self) -> AsyncIterator[str]:
        """Yield what can't be had though nobody has it."""
        # No rest after a lock is longer.
        await asyncio.sleep(30)
        for number in range(self._world.mix.work.items):
            item = f"item-{number}"
            request = engagement_pb2.RequestLockRequest(item=item, worker="closer", kind="analysis")
            if (answer := await self._ask("RequestLock", request)).HasField("refused"):
                yield f"{item} is not free: {answer}"
        for pool in (await self._ask("ListPools", admin_pb2.ListPoolsRequest())).pools:
            if pool.capacity and pool.free != pool.capacity:
                yield f"{pool.name} has {pool.free} of {pool.capacity} units, and nobody holds any"
        for endpoint in ("post", "search"):
            wait = rate_limit_pb2.AwaitPermitRequest(
                endpoint=endpoint,
                worker="closer",
                priority=common_pb2.PRIORITY_CRITICAL,
                wait_timeout=length(_UNBOOKED_S),
            )
            if (answer := await self._ask("AwaitPermit", wait)).HasField("refused"):
                yield f"{endpoint} gives no permit any more: {answer}"

    async def _dump(self) -> None:
        locks = [
            recorder.lock(lock)
            async for page in self._pages("ListLocks", engagement_pb2.ListLocksRequest)
            for lock in page.locks
        ]
        reservations = [
            recorder.reservation(each)
            async for page in self._pages("ListReservations", reservation_pb2.ListReservationsRequest)
            for each in page.reservations
        ]
        now_ns = self._world.loop.now_ns
        self._world.record.add(to.Dumped(at=now_ns, locks=locks, reservations=reservations))

    async def _pages(self, name: str, request: Any) -> AsyncIterator[Any]:
        token = ""
        while True:
            page = await self._ask(name, request(page_size=_PAGE, page_token=token))
            yield page
            token = page.next_page_token
            if not token:
                return

    def _check_file(self) -> list[str]:
        with closing(sqlite3.connect(self._path)) as connection:
            [verdict] = connection.execute("PRAGMA integrity_check").fetchone()
            rows = connection.execute("SELECT item, kind, worker, outcome, at, token FROM engagements")
            engagements = [
                to.Engagement(item, kind, worker, _OUTCOMES[outcome], at, token)
                for item, kind, worker, outcome, at, token in rows
            ]
        self._world.record.add(to.Dumped(at=self._world.loop.now_ns, engagements=engagements))
        return [] if verdict == "ok" else [f"the file is corrupt: {verdict}"]
