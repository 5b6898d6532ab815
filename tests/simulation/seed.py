"""One seed: a world that is made, in which things go wrong for a while, and which is then left in peace."""

import asyncio
import gc
import shutil
import sys
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import structlog
from audit.judge import audit

from simulation.configs import Configs
from simulation.crew import SORTS, Crew
from simulation.disk import Files
from simulation.fleet import World
from simulation.history import Record, digest
from simulation.host import Host
from simulation.loop import Loop, Stuck
from simulation.mix import Mix
from simulation.peace import Peace
from simulation.trouble import Trouble
from simulation.upstream import Upstream
from simulation.wire import Wire


@dataclass
class Result:
    """What became of a seed."""

    seed: int
    digest: str = ""
    virtual_s: float = 0.0
    calls: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    # What happened to what the first of them names.
    events: list[str] = field(default_factory=list)


def run(seed: int) -> tuple[Result, Record]:
    """Run one seed."""
    structlog.configure(processors=[_silence], cache_logger_on_first_use=False)
    # So that nothing is closed at a moment of the collector's choice.
    gc.disable()
    # What has been imported is no garbage: to look through it takes longer than many a seed.
    gc.freeze()
    folder = Path(tempfile.mkdtemp(prefix="coordd-sim-", dir=_memory()))
    loop = Loop()
    try:
        return _run(seed, loop, folder)
    finally:
        loop.close()
        shutil.rmtree(folder)
        _clear_away()


def _run(seed: int, loop: Loop, folder: Path) -> tuple[Result, Record]:
    world = _Seed(seed, loop, folder)
    violations: list[str] = []
    try:
        violations += loop.run_until_complete(world.live())
    except Stuck as stuck:
        violations.append(str(stuck))
    world.host.close()
    violations += world.host.violations
    violations += [f"uncaught: {error}" for error in loop.errors]
    record = world.record
    history = record.history()
    violations += map(str, audit(history))
    result = Result(
        seed,
        digest=digest(history),
        virtual_s=world.troubled_s,
        calls=record.calls,
        faults=dict(sorted(record.faults.items())),
        violations=violations,
        events=record.lines_about(violations[0]) if violations else [],
    )
    return result, record


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
        # What comes after is peace, and no more than a look around.
        self.troubled_s = 0.0
        self._path = folder / "coordd.db"
        self._mix = mix = Mix.drawn(self._random("mix"), tuple(SORTS))
        self.record = Record(loop, mix.calls_max)
        wire = Wire(loop, mix.wire, self._random("wire"), self.record.note)
        self.host = Host(
            loop=loop,
            wire=wire,
            mix=mix,
            random=self._random("host"),
            files=Files(self._path),
            settings=Configs(self._random("config"), self._path, mix.host.reconfigure_rate).next,
            record=self.record,
        )
        upstream = Upstream(loop, self.record, self._random("upstream"), mix.upstream)
        self._world = World(loop, wire, self.record, upstream, mix)

    def _random(self, name: str) -> Random:
        return Random(f"{self._seed}/{name}")

    async def live(self) -> list[str]:
        crew = Crew(self._world, self._random)
        trouble = Trouble(self._loop, self.host, crew, self._mix.host, self._random)
        self.host.start()
        crew.start()
        trouble.begin()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._mix.duration_s):
                await self.record.is_full.wait()
        trouble.end()
        self.troubled_s = self._loop.time()
        return await Peace(self._world, crew, self.host, self._path).come()
