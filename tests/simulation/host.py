"""The machine that the daemon runs on: its clocks, its disk, and whoever starts it again.

Owns: which process is the daemon now, and how it ends: by itself, told to stop, killed, or with the power.
Rules: there is one data file and one daemon at a time; a new one starts on what the last one has left. What
is dead is kept to the end: a coroutine that nobody refers to is closed, and runs its `finally`, as no killed
process does.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import Any, Final

from coordd.config import Settings
from coordd.engine import Clock
from simulation.daemon import EXIT_STOPPED, EXIT_STORE_FAILED, Daemon
from simulation.disk import Disk, Files, Image
from simulation.history import Record
from simulation.loop import SECOND, Loop, Process
from simulation.mix import Mix
from simulation.wire import Link, Server, Wire

# Some day in 2026.
EPOCH_NS: Final = 1_780_000_000 * SECOND


class Run:
    """One process of the daemon, with all that is its own."""

    def __init__(self, process: Process, server: Server, disk: Disk, daemon: Daemon) -> None:
        self.process = process
        self.server = server
        self.disk = disk
        self.daemon = daemon
        self.task: asyncio.Task[Any] | None = None

    def bury(self, image: Image | None, end: Callable[[Link], None]) -> None:
        """Let nothing be left of it but what is on the disk, and let each connection `end`."""
        self.process.is_dead = True
        self.server.gone()
        for link in list(self.server.links):
            end(link)
        self.disk.abandon(image)
        if self.task is not None and not self.task.done():
            self.daemon.let_go()


class Host:
    """The machine.

    Args: settings: what each start reads.
    """

    def __init__(
        self,
        *,
        loop: Loop,
        wire: Wire,
        mix: Mix,
        random: Random,
        files: Files,
        settings: Callable[[], Settings],
        record: Record,
    ) -> None:
        self.run: Run | None = None
        self.violations: list[str] = []
        self.is_faulty = True
        self._loop = loop
        self._wire = wire
        self._mix = mix
        self._random = random
        self._files = files
        self._settings = settings
        self._record = record
        self._note = record.note
        self._starts = 0
        self._wall_offset_ns = 0
        self._past: list[Run] = []
        self._is_ending = False
        self._ended = asyncio.Event()

    # -- the clock on the wall -------------------------------------------------------------------------------

    def wall_ns(self) -> int:
        """Return what it shows."""
        return EPOCH_NS + self._loop.now_ns + self._wall_offset_ns

    def step(self, by_ns: int) -> None:
        """Set it."""
        self._note("clock step")
        self._wall_offset_ns += by_ns

    # -- starting --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon on what is there."""
        self._starts += 1
        process = Process(f"daemon-{self._starts}", self._random)
        process.cost_ns = self._mix.host.cost_ns
        process.lateness_ns_max = self._mix.host.lateness_ns_max
        settings = self._settings()
        process.context().run(self._begin, process, settings)

    def _begin(self, process: Process, settings: Settings) -> None:
        server = Server(self._wire, process)
        disk = Disk(
            files=self._files,
            loop=self._loop,
            mix=self._mix.disk,
            random=self._random,
            note=self._note,
            on_power_cut=self._on_power_cut,
        )
        disk.is_faulty = self.is_faulty
        clock = Clock(wall_ns=self.wall_ns, monotonic_ns=lambda: self._loop.now_ns)
        run = self.run = Run(process, server, disk, Daemon(settings, disk, server, clock))
        self._record.started(settings)
        run.daemon.on_serving = lambda now_ns: self._record.serving(now_ns - self._loop.now_ns)
        run.task = self._loop.spawn(process, run.daemon.run())
        run.task.add_done_callback(lambda task: self._on_exit(run, task), context=Context())

    def _start_later(self) -> None:
        self.run = None
        if self._is_ending:
            self._ended.set()
            return
        down_s = self._random.uniform(0.01, self._mix.host.down_s_max if self.is_faulty else 1)
        self._loop.call_later(down_s, self.start, context=Context())

    # -- ends ------------------------------------------------------------------------------------------------

    def _on_exit(self, run: Run, task: asyncio.Task[Any]) -> None:
        """See how it has ended by itself."""
        if run.process.is_dead:
            return
        if run.daemon.defect is not None:
            self.violations.append(f"the engine found a bug in itself: {run.daemon.defect!r}")
        if task.cancelled() or task.exception() is not None:
            self.violations.append(f"the daemon died of {'' if task.cancelled() else task.exception()!r}")
        elif task.result() not in (
            (EXIT_STOPPED, EXIT_STORE_FAILED) if run.disk.has_failed else (EXIT_STOPPED,)
        ):
            self.violations.append(f"the daemon ended by itself with {task.result()}")
        self.violations.extend(run.server.defects)
        self._end(run, "exit", None, Link.close)

    def _on_power_cut(self, image: Image) -> None:
        """The power goes in the middle of a transaction."""
        run = self.run
        assert run is not None
        run.process.is_dead = True
        self._note("power cut in a commit")
        # Not at once: SQLite is at work on the stack.
        self._loop.call_soon(self._end, run, "power cut", image, Link.vanish, context=Context())

    def kill(self) -> None:
        """Kill the daemon where it stands, or let the power go."""
        run = self.run
        if run is None or run.process.is_dead:
            return
        if self._random.random() < 0.3:
            self._note("power cut")
            self._end(run, "power cut", None, Link.vanish)
        else:
            self._note("kill")
            self._end(run, "kill", None, Link.close)

    def _end(self, run: Run, how: str, image: Image | None, end: Callable[[Link], None]) -> None:
        run.bury(image, end)
        self.violations.extend(run.server.defects)
        self._record.ended(how)
        self._past.append(run)
        self._start_later()

    # -- what is done to it ----------------------------------------------------------------------------------

    def kill_soon(self, fuel: int) -> None:
        """Kill the daemon after so many steps of whatever it does then."""
        if self.run is not None:
            self.run.process.fuel = fuel
            self.run.process.on_exhausted = self.kill

    def stop(self) -> None:
        """Tell the daemon to stop, as SIGTERM does; it is started again."""
        if self.run is not None and self.run.daemon.is_serving:
            self._note("restart")
            self.run.daemon.stop_asked.set()

    def freeze(self, for_s: float) -> None:
        """Stop the daemon where it is, for so long."""
        run = self.run
        if run is None or run.process.is_frozen:
            return
        self._note("freeze")
        self._loop.freeze(run.process)
        for link in list(run.server.links):
            link.give_up(lambda: run.process.is_frozen)
        self._loop.call_later(for_s, self._loop.thaw, run.process, context=Context())

    def calm(self) -> None:
        """Let nothing more go wrong."""
        self.is_faulty = False
        if self.run is not None:
            self.run.process.fuel = None
            self.run.disk.is_faulty = False
            self._loop.thaw(self.run.process)

    async def end(self) -> None:
        """Stop the daemon for good."""
        self._is_ending = True
        self.stop()
        await self._ended.wait()

    def close(self) -> None:
        """Close what is open."""
        if self.run is not None:
            self.run.bury(None, Link.vanish)
