"""What goes wrong on the machine and among the workers while they work, each sort at times of its own."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from simulation.crew import Crew
from simulation.host import Host
from simulation.loop import SECOND, Loop
from simulation.mix import HostMix

# A kill hits after so many steps of the daemon at most, so that any await may be the one.
_STEPS_MAX = 300


class Trouble:
    """All of it, from `begin` to `end`."""

    def __init__(
        self, loop: Loop, host: Host, crew: Crew, mix: HostMix, random: Callable[[str], Random]
    ) -> None:
        self._loop = loop
        self._host = host
        self._crew = crew
        self._mix = mix
        self._random = random
        self._tasks: list[asyncio.Task[Any]] = []

    def begin(self) -> None:
        """Let things go wrong."""
        mix = self._mix
        for name, every_s, do in (
            ("kill", mix.kill_every_s, self._kill),
            ("restart", mix.restart_every_s, lambda _: self._host.stop()),
            ("freeze", mix.freeze_every_s, self._freeze),
            ("step", mix.step_every_s, self._step),
            ("worker crash", mix.worker_crash_every_s, self._crew.crash),
        ):
            if every_s:
                self._tasks.append(self._loop.create_task(self._every(every_s, self._random(name), do)))

    def end(self) -> None:
        """Let nothing more go wrong."""
        for task in self._tasks:
            task.cancel()
        self._host.calm()

    async def _every(self, mean_s: float, random: Random, do: Callable[[Random], None]) -> None:
        while True:
            await asyncio.sleep(random.expovariate(1.0) * mean_s)
            do(random)

    def _kill(self, random: Random) -> None:
        self._host.kill_soon(random.randrange(_STEPS_MAX))

    def _freeze(self, random: Random) -> None:
        self._host.freeze(random.uniform(0, self._mix.freeze_s_max))

    def _step(self, random: Random) -> None:
        by_s = random.uniform(-self._mix.step_s_max, self._mix.step_s_max)
        self._host.step(round((by_s if self._mix.is_stepped_ahead else -abs(by_s)) * SECOND))
