"""The end of a seed, with the faults off: everybody is answered, and every queue is empty.

Rules: what is left in the daemon and in its file is written down for the judges, when nobody else is asking.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from audit import history as to
from audit import recorder

from coordd.v1 import admin_pb2, engagement_pb2, reservation_pb2
from simulation.crew import Crew
from simulation.fleet import World
from simulation.host import Host
from simulation.loop import Process
from simulation.wire import CallFailed, Channel

# The longest wait, and the longest grace of one that is away, with a little for the daemon to be there again.
_ANSWERED_S: Final = 600
_EMPTY_S: Final = 120
_PAGE: Final = 1_000
_OUTCOMES: Final = {1: "SUCCESS", 2: "FAILURE", 3: "UNKNOWN"}


class Peace:
    """The end."""

    def __init__(self, world: World, crew: Crew, host: Host, path: Path) -> None:
        self._world = world
        self._crew = crew
        self._host = host
        self._path = path
        self._channel = Channel(world.wire, Process("closer"))

    async def come(self) -> list[str]:
        """Let it come; return what was not as it should be."""
        world = self._world
        world.wire.is_faulty = False
        world.is_calm = True
        world.calm.set()
        world.record.add(to.Calmed(at=world.loop.now_ns))
        wrong = await self._crew.end(_ANSWERED_S)
        if wrong:
            return wrong
        try:
            async with asyncio.timeout(_EMPTY_S):
                await self._empty()
                await self._dump()
        except TimeoutError:
            return [f"queues were not empty within {_EMPTY_S} s: {self._seen}"]
        await self._host.end()
        return self._check_file()

    async def _ask(self, name: str, request: Any) -> Any:
        while True:
            try:
                reply, _ = await self._channel.ask(name, request, 5.0)
            except CallFailed as error:
                if error.code != "UNAVAILABLE":
                    raise
                await asyncio.sleep(0.1)
            else:
                return reply

    async def _empty(self) -> None:
        while True:
            self._seen = await self._ask("GetStatus", admin_pb2.GetStatusRequest())
            if not (self._seen.waiters or self._seen.escalations):
                return
            await asyncio.sleep(1)

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
