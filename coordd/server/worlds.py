"""The worlds of one daemon, one for each namespace: engine, rules and data file of its own.

Owns: what each is made of, that they live and end together, and that one whose store fails takes nobody
along: it answers nothing from then on, and the others go on. Only when all have failed has the daemon failed.
Must not know: gRPC's server, health, signals, exit codes.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial
from importlib.metadata import version

from coordd import rpc
from coordd.config import DEFAULT_NAMESPACE, Settings
from coordd.engine import Clock, Engine, EngineError
from coordd.server.memory import records_replaced
from coordd.store.protocol import CommitFailed, StoreError, Unusable
from coordd.store.sqlite import SqliteStore
from coordd.telemetry import Telemetry


class Worlds:
    """An engine for each namespace. `start` once, then `stop` once.

    Args: telemetry: sees all of them. clock: of the namespace `default`, instead of the machine's own, as for
    tests.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry, *, clock: Clock | None = None) -> None:
        self._settings = dict(settings.worlds)
        self.engines = {
            name: _engine(world, telemetry, name, clock if name == DEFAULT_NAMESPACE else None)
            for name, world in self._settings.items()
        }
        self._backends = {
            name: _backend(self._settings[name], engine) for name, engine in self.engines.items()
        }
        # Those that could not be opened, and why.
        self.unusable: dict[str, Unusable] = {}
        self._namespaces = rpc.Namespaces(self.engines)
        self._quotas = {
            name: rpc.CallQuota(world.quotas.calls, world.quotas.calls_per_second)
            for name, world in self._settings.items()
        }
        for name, engine in self.engines.items():
            telemetry.show(name, engine, self._settings[name].store.path, partial(self._is_usable, name))

    def _is_usable(self, name: str) -> bool:
        return name not in self.unusable and not self.engines[name].has_failed

    def servicer(self, make: Callable[[rpc.Backend], object]) -> object:
        """Return a service's servicers, by `make`, as one that picks the namespace of each call."""
        return rpc.Routed(
            self._namespaces,
            {name: make(backend) for name, backend in self._backends.items()},
            self._quotas,
        )

    async def start(self) -> None:
        """Recover every namespace that can be. Raises: Unusable if none can be."""
        for name, engine in self.engines.items():
            try:
                await engine.start()
            except Unusable as error:
                self.unusable[name] = error
                self._namespaces.fail(name)
        if len(self.unusable) == len(self.engines):
            raise self.unusable[DEFAULT_NAMESPACE]

    async def reload(self, settings: Settings) -> None:
        """Go on under what the settings say now of each namespace; one they don't know is left as it is.

        Raises: EngineError, StoreError, of the first that could not, once all have tried.
        """
        errors: list[Exception] = []
        # One after the other: each holds the event loop for a while.
        for name, world in settings.worlds.items():
            if name in self.engines and self._is_usable(name):
                try:
                    await self._reload(name, world)
                except (EngineError, StoreError) as error:
                    errors.append(error)
        if errors:
            raise errors[0]

    async def _reload(self, name: str, world: Settings) -> None:
        former, backend = self._settings[name], self._backends[name]
        rules, retention_ns = world.rules(), world.store.history_retention_ns
        if (rules, retention_ns) != (former.rules(), former.store.history_retention_ns):
            with records_replaced():
                await self.engines[name].reload(rules, history_retention_ns=retention_ns)
        backend.wait_ns_default, backend.history_ns = world.waits.default_timeout_ns, retention_ns
        self._quotas[name].change(world.quotas.calls, world.quotas.calls_per_second)
        self._settings[name] = world

    async def failures(self) -> AsyncGenerator[tuple[str, CommitFailed], None]:
        """Yield each namespace that fails from now on, and why; end when none is left."""
        watched = {
            asyncio.create_task(engine.failure()): name
            for name, engine in self.engines.items()
            if name not in self.unusable
        }
        try:
            while watched:
                done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    name = watched.pop(task)
                    self._namespaces.fail(name)
                    yield name, task.result()
        finally:
            for task in watched:
                task.cancel()

    def wind_down(self) -> None:
        """Grant nothing more, in none of them."""
        for engine in self.engines.values():
            engine.wind_down()

    def end_watches(self) -> None:
        """End every watch and session, once it has shown what has happened so far."""
        for engine in self.engines.values():
            engine.end_watches()

    async def stop(self) -> None:
        """Commit what is open, close every store. Raises: StoreError, of the first, once all are closed."""
        ended = await asyncio.gather(
            *(engine.stop() for engine in self.engines.values()), return_exceptions=True
        )
        for error in ended:
            if error is not None:
                raise error


def _engine(settings: Settings, telemetry: Telemetry, name: str, clock: Clock | None) -> Engine:
    observer, commit_observer = telemetry.of(name)
    return Engine(
        settings.rules(),
        SqliteStore(settings.store.path),
        history_retention_ns=settings.store.history_retention_ns,
        clock=clock,
        observer=observer,
        commit_observer=commit_observer,
    )


def _backend(settings: Settings, engine: Engine) -> rpc.Backend:
    return rpc.Backend(
        engine=engine,
        wait_ns_default=settings.waits.default_timeout_ns,
        history_ns=settings.store.history_retention_ns,
        version=version("coordd"),
    )
