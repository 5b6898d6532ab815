"""One seed: a world that is made, in which things go wrong for a while, and which is then left in peace."""

import asyncio
import gc
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import structlog

from simulation import configs
from simulation.bundlers import Bundler
from simulation.callers import Booker, Caller
from simulation.disk import Files
from simulation.fleet import Make, Worker, World
from simulation.history import Record, digest
from simulation.host import Host
from simulation.lockers import Locker
from simulation.loop import SECOND, Loop, Stuck
from simulation.mix import DiskMix, HostMix, Mix, UpstreamMix, WireMix, WorkMix, between
from simulation.operators import Operator, Reader, Watcher
from simulation.reservers import Reserver
from simulation.sessions import Session
from simulation.upstream import Upstream
from simulation.wire import Wire

_SORTS: Final[dict[str, Make]] = {
    "locker": Locker,
    "reserver": Reserver,
    "caller": Caller,
    "booker": Booker,
    "bundler": Bundler,
    "operator": Operator,
    "reader": Reader,
    "watcher": Watcher,
}
# Everything that was asked is answered by then once nothing goes wrong any more.
_PEACE_S: Final = 600


@dataclass
class Result:
    """What became of a seed."""

    seed: int
    digest: str = ""
    virtual_s: float = 0.0
    calls: int = 0
    handles: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def run(seed: int) -> tuple[Result, Record]:
    """Run one seed."""
    structlog.configure(processors=[_silence], cache_logger_on_first_use=False)
    # So that nothing is closed at a moment of the collector's choice.
    gc.disable()
    folder = Path(tempfile.mkdtemp(prefix="coordd-sim-", dir=_memory()))
    loop = Loop()
    try:
        return loop.run_until_complete(_Seed(seed, loop, folder).run())
    finally:
        loop.close()
        shutil.rmtree(folder)
        _clear_away()


def _clear_away() -> None:
    """Collect what the dead have left: their coroutines end on a loop that is closed, and may protest."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings(action="ignore"):
            gc.collect()
    finally:
        sys.unraisablehook = hook
        gc.enable()


def _memory() -> str | None:
    """Return a directory in memory, if there is one: a real disk's syncs would be waited for."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108


def _silence(*_: Any) -> Any:
    raise structlog.DropEvent


class _Seed:
    def __init__(self, seed: int, loop: Loop, folder: Path) -> None:
        self._seed = seed
        self._loop = loop
        self._folder = folder
        random = self._random("mix")
        self._mix = Mix(
            duration_s=between(random, 20, 2000),
            calls_max=round(between(random, 100, 4000)),
            disk=DiskMix.drawn(random),
            wire=WireMix.drawn(random),
            host=HostMix.drawn(random),
            work=WorkMix.drawn(random, tuple(_SORTS)),
            upstream=UpstreamMix.drawn(random),
        )
        self._record = Record(loop, self._mix.calls_max)
        self._wire = Wire(loop, self._mix.wire, self._random("wire"), self._record.note)
        path = folder / "coordd.db"
        config_random = self._random("config")
        self._settings = configs.drawn(config_random, path)

        def settings() -> Any:
            if config_random.random() < self._mix.host.reconfigure_rate:
                self._settings = configs.drawn(config_random, path)
            return self._settings

        self._host = Host(
            loop=loop,
            wire=self._wire,
            mix=self._mix,
            random=self._random("host"),
            files=Files(path),
            settings=settings,
            record=self._record,
        )
        self._upstream = Upstream(loop, self._record, self._random("upstream"), self._mix.upstream)
        self._world = World(loop, self._wire, self._record, self._upstream, self._mix)

    def _random(self, name: str) -> Random:
        return Random(f"{self._seed}/{name}")

    async def run(self) -> tuple[Result, Record]:
        result = Result(self._seed)
        try:
            await self._live()
        except Stuck as stuck:
            self._world.violations.append(str(stuck))
        self._host.close()
        result.digest = digest(self._record.history())
        result.virtual_s = self._loop.time()
        result.calls = self._record.calls
        result.handles = self._loop.handles
        result.faults = dict(sorted(self._record.faults.items()))
        result.violations = [
            *self._world.violations,
            *self._host.violations,
            *(f"uncaught: {error}" for error in self._loop.errors),
        ]
        return result, self._record

    async def _live(self) -> None:
        self._host.start()
        workers = self._workers()
        tasks = [
            self._loop.spawn(worker.process, each)
            for worker in workers
            for each in (worker.run(), *self._sessions(worker))
        ]
        trouble = [self._loop.create_task(each) for each in self._trouble()]
        with suppress(TimeoutError):
            async with asyncio.timeout(self._mix.duration_s):
                await self._record.is_full.wait()
        for task in trouble:
            task.cancel()
        await self._peace(tasks)

    def _workers(self) -> list[Worker]:
        return [
            _SORTS[sort](self._world, f"{sort}-{number}", self._random(f"{sort}-{number}"))
            for sort, count in self._mix.work.workers.items()
            for number in range(1, count + 1)
        ]

    def _sessions(self, worker: Worker) -> list[Any]:
        return [Session(worker).run()] if worker.chance(self._mix.work.session_rate) else []

    async def _peace(self, tasks: list[asyncio.Task[Any]]) -> None:
        self._wire.is_faulty = False
        self._host.calm()
        self._world.is_calm = True
        self._world.calm.set()
        _, late = await asyncio.wait(tasks, timeout=_PEACE_S)
        if late:
            self._world.violations.append(
                f"{len(late)} workers were not answered within {_PEACE_S} s of peace"
            )
        for task in tasks:
            if task.done() and task.exception() is not None:
                self._world.violations.append(f"a worker failed: {task.exception()!r}")

    # -- trouble ---------------------------------------------------------------------------------------------

    def _trouble(self) -> Iterator[Any]:
        host, mix = self._host, self._mix.host
        yield self._every(mix.kill_every_s, "kills", lambda random: host.kill_soon(random.randrange(300)))
        yield self._every(mix.restart_every_s, "restarts", lambda _: host.stop())
        yield self._every(
            mix.freeze_every_s, "freezes", lambda random: host.freeze(random.uniform(0, mix.freeze_s_max))
        )
        yield self._every(mix.step_every_s, "steps", self._step)

    def _step(self, random: Random) -> None:
        by_s = random.uniform(-self._mix.host.step_s_max, self._mix.host.step_s_max)
        self._host.step(round((by_s if self._mix.host.is_stepped_ahead else -abs(by_s)) * SECOND))

    async def _every(self, mean_s: float, name: str, do: Any) -> None:
        random = self._random(name)
        while mean_s:
            await asyncio.sleep(random.expovariate(1.0) * mean_s)
            do(random)
