"""Starting and ending the demo's processes: only those it started, each by its own id.

Every child has a session of its own, so that Ctrl-C reaches the demo alone, which then ends them in order.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_START_S_MAX: Final = 30.0
_STOP_S_MAX: Final = 5.0


class DemoFailed(Exception):
    """The demo could not be carried through, as when one of its processes ended badly."""


class Child:
    """One process: what it says on stdout can be waited for, what it says on stderr goes to a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, errors_path: Path) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a child is talked with: it needs pipes")
        self.name = name
        self._errors_path = errors_path
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    @classmethod
    async def start(cls, name: str, command: Sequence[str], *, directory: Path) -> "Child":
        """Start `command` from the repository's root. Args: directory: where its stderr goes, as NAME.err."""
        errors_path = directory / f"{name}.err"
        with errors_path.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=_ROOT,
                env=_environment(),
                start_new_session=True,
            )
        return cls(name, process, errors_path)

    async def line_with(self, words: str) -> str:
        """Return the next line on stdout that contains `words`.

        Raises: DemoFailed if stdout ends, or nothing comes for 30 s.
        """
        try:
            async with asyncio.timeout(_START_S_MAX):
                while line := (await self._stdout.readline()).decode():
                    if words in line:
                        return line
        except TimeoutError:
            pass
        raise DemoFailed(f"{self.name} did not say {words!r}\n{self.last_words()}")

    def tell(self, line: str) -> None:
        """Write one line to its stdin."""
        self._stdin.write(f"{line}\n".encode())

    def last_words(self) -> str:
        """Return the end of what it wrote to stderr."""
        return "\n".join(self._errors_path.read_text(errors="replace").splitlines()[-20:])

    async def wait(self) -> int:
        """Return its exit code once it has ended; negative: the signal that ended it."""
        return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL it, and wait until it is gone."""
        self._signal(signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL if it does not listen. Harmless if it has ended."""
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_S_MAX)
        except TimeoutError:
            await self.kill()

    def _signal(self, number: signal.Signals) -> None:
        # Once the exit code is collected the id may belong to somebody else.
        if self._process.returncode is None:
            self._process.send_signal(number)


def _environment() -> dict[str, str]:
    # The user's own daemon may be configured by the environment; this one is not that one.
    return {name: value for name, value in os.environ.items() if not name.startswith("COORDD_")}


class Processes:
    """All children of one run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._children: list[Child] = []

    async def start(self, name: str, command: Sequence[str]) -> Child:
        """Start a child that will be ended with the run."""
        child = await Child.start(name, command, directory=self._directory)
        self._children.append(child)
        return child

    async def start_module(self, name: str, module: str, *arguments: str) -> Child:
        """Start a Python module of the demo, or one of another package by its full name."""
        full_name = module if "." in module else f"examples.demo.{module}"
        return await self.start(name, [sys.executable, "-m", full_name, *arguments])

    async def stop_all(self) -> None:
        """End all that still run."""
        await asyncio.gather(*(child.stop() for child in self._children))


@asynccontextmanager
async def processes(directory: Path) -> AsyncIterator[Processes]:
    """Yield a starter of processes, and end all it started, however the block ends."""
    started = Processes(directory)
    try:
        yield started
    finally:
        await started.stop_all()
