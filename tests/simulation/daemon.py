"""The daemon in a process of its own: real engine, store and servicers over a simulated wire and disk.

Owns: that it is started, drained and stopped as `coordd.server` does it; gRPC's server is what is left out.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Final

from coordd import rpc
from coordd.config import Settings
from coordd.core.limits import SECOND
from coordd.engine import Clock, Defect, Engine
from coordd.server.tasks import first
from coordd.store.owner import Owner
from coordd.store.sqlite import SqliteStore
from simulation.disk import Disk
from simulation.wire import Server

EXIT_STOPPED: Final = 0
EXIT_STORE_FAILED: Final = 4
_FAILED_GRACE_S: Final = 1.0
_QUIET_S: Final = 0.05
_LAST_GRACE_S: Final = 0.1


class Daemon:
    """The daemon. `run` once."""

    def __init__(self, settings: Settings, disk: Disk, server: Server, clock: Clock) -> None:
        self._settings = settings
        self._server = server
        self._store = SqliteStore(settings.store.path, threads=disk)
        self.engine = Engine(
            settings.rules(),
            self._store,
            history_retention_ns=settings.store.history_retention_ns,
            clock=clock,
        )
        self._calls = rpc.Calls()
        backend = rpc.Backend(
            engine=self.engine,
            wait_ns_default=settings.waits.default_timeout_ns,
            history_ns=settings.store.history_retention_ns,
            version="simulated",
        )
        for servicer, add in rpc.SERVICERS:
            server.add(*self._calls.handlers(add, servicer(backend)))
        self.stop_asked = asyncio.Event()
        self.is_serving = False
        self.on_serving: Callable[[int], None] = lambda _: None
        self.owner: Owner | None = None
        # A bug that the engine has found in itself.
        self.defect: Defect | None = None

    async def run(self) -> int:
        """Serve until told to stop, or until the store fails; return the exit code. Raises: Unusable."""
        await self.engine.start()
        self.owner = self._store._owner
        self.on_serving(self.engine.now())
        self._server.listen()
        self.is_serving = True
        failure = asyncio.create_task(self.engine.failure())
        await first(asyncio.shield(failure), self.stop_asked.wait())
        self.is_serving = False
        grace_s = self._settings.server.drain_timeout_ns / SECOND
        has_failed = failure.done()
        if has_failed:
            error = failure.result()
            self.defect = error if isinstance(error, Defect) else None
            grace_s = min(grace_s, _FAILED_GRACE_S)
        await self._stop(grace_s)
        failure.cancel()
        return EXIT_STORE_FAILED if has_failed else EXIT_STOPPED

    def let_go(self) -> None:
        """Give up the data file, as the kernel does for a process that has been killed."""
        owner = self._store._owner or self.owner
        if owner is not None:
            os.close(owner._descriptor)
            # Its number is somebody else's soon, and what is cleared away in the end may try to close it.
            owner._descriptor = -1

    async def _stop(self, grace_s: float) -> None:
        self.engine.wind_down()
        await first(self._calls.idle(), asyncio.sleep(grace_s))
        await first(self._calls.quiet(_QUIET_S), asyncio.sleep(min(grace_s, 1)))
        self.engine.end_watches()
        await self._server.stop(min(grace_s, _LAST_GRACE_S))
        await self.engine.stop()
