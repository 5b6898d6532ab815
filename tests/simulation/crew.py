"""Everybody who is at work, and what comes after one that has crashed: another of the same name.

Rules: who comes after knows nothing of what the one before held, and its request ids are its own.
"""

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

from simulation.bundlers import Bundler
from simulation.callers import Booker, Caller
from simulation.fleet import Make, Worker, World
from simulation.lockers import Locker
from simulation.operators import Operator, Reader, Watcher
from simulation.reservers import Reserver
from simulation.sessions import Session

SORTS: Final[Mapping[str, Make]] = {
    "locker": Locker,
    "reserver": Reserver,
    "caller": Caller,
    "booker": Booker,
    "bundler": Bundler,
    "operator": Operator,
    "reader": Reader,
    "watcher": Watcher,
}


class Crew:
    """All workers by name."""

    def __init__(self, world: World, random: Callable[[str], Random]) -> None:
        self._world = world
        self._random = random
        self._workers: dict[str, Worker] = {}
        self._tasks: dict[str, list[asyncio.Task[Any]]] = {}
        self._generations: dict[str, int] = {}
        # See Process.may_run.
        self._dead: list[object] = []

    def start(self) -> None:
        """Let everybody begin."""
        for sort, count in self._world.mix.work.workers.items():
            for number in range(1, count + 1):
                self._hire(sort, f"{sort}-{number}")

    def _hire(self, sort: str, name: str) -> None:
        generation = self._generations[name] = self._generations.get(name, 0) + 1
        random = self._random(f"{name}/{generation}")
        worker = self._workers[name] = SORTS[sort](self._world, name, generation, random)
        jobs = [worker.run()]
        if random.random() < self._world.mix.work.session_rate:
            jobs.append(Session(worker).run())
        self._tasks[name] = [self._world.loop.spawn(worker.process, job) for job in jobs]

    def crash(self, random: Random) -> None:
        """Kill one of them where it stands; another takes its place."""
        name = random.choice(list(self._workers))
        worker = self._workers[name]
        self._world.record.note("worker crash")
        worker.die()
        self._dead += [worker, *self._tasks[name]]
        self._hire(name.partition("-")[0], name)

    async def end(self, within_s: float) -> list[str]:
        """Wait until everybody has been answered, and has gone home; return what went wrong."""
        await asyncio.wait([task for tasks in self._tasks.values() for task in tasks], timeout=within_s)
        return [
            f"{name} was not answered within {within_s} s"
            if not task.done()
            else f"{name} failed: {task.exception()!r}"
            for name, tasks in self._tasks.items()
            for task in tasks
            if not task.done() or task.exception() is not None
        ]
