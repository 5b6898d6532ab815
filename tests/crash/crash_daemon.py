"""The real daemon as a process: started on one data file as often as one likes, and ended in every way."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING

CAPACITY: Final = 3
WINDOW_S: Final = 10
LIMIT: Final = 12
KIND: Final = "analysis"
_CONFIG: Final = f"""
[kinds.{KIND}]
lock_delay = "0s"
[pools.small]
capacity = {CAPACITY}
[types.slot]
pool = "small"
[limits.post]
windows = {{ "{WINDOW_S}s" = {LIMIT}, "1h" = {LIMIT * 100} }}
use_within = "500ms"
[waits]
resume_grace = "1m"
[recovery]
grace = "1s"
"""


class Daemon:
    """The daemon on the data file `folder`/coordd.db.

    Args: data: a folder for the data file alone. environment: variables besides our own. before: called in
    the new process before it becomes the daemon. config: more of its configuration. level: of its log.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data: Path | None = None,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
        config: str = "",
        level: str = "warning",
    ) -> None:
        self.path = (data or folder) / "coordd.db"
        self.address = ""
        self.environment = dict(environment or {})
        self.before = before
        # When it was about to start, and had ended, by `time.monotonic_ns`.
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.config = folder / "coordd.toml"
        tables = (
            f'[log]\nlevel = "{level}"\n[server]\naddress = "127.0.0.1:0"\n[store]\npath = "{self.path}"\n'
        )
        self.config.write_text(_CONFIG + config + tables)
        self._log = folder / "stderr"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._running.pid

    async def launch(self) -> None:
        """Start the process."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("COORDD_")}
        self.starts.append(time.monotonic_ns())
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                Path(sys.executable).with_name("coordd"),
                "serve",
                "--config",
                self.config,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**ours, **self.environment},
                preexec_fn=self.before,
            )

    async def serving(self) -> None:
        """Wait until it serves."""
        assert self._running.stdout is not None
        line = (await self._running.stdout.readline()).decode()
        assert line.startswith("coordd serving on "), (line, self.log())
        self.address = line.split()[3]

    async def start(self) -> None:
        """Start the process, and wait until it serves."""
        await self.launch()
        await self.serving()

    async def end(self, number: signal.Signals) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait until it ends by itself, and return the exit code."""
        await self._running.communicate()
        self.ends.append(time.monotonic_ns())
        assert self._running.returncode is not None
        return self._running.returncode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._running.send_signal(number)

    def log(self) -> list[str]:
        """Return the lines on stderr since the last start."""
        return self._log.read_text().splitlines()

    async def close(self) -> None:
        """Leave no process behind, whatever happened."""
        if self._process is not None and self._process.returncode is None:
            await self.end(signal.SIGKILL)

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "not launched"
        return self._process


class Health:
    """What the daemon says of its health, from the moment at which it is watched."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        self._stream = stub.Watch(health_pb2.HealthCheckRequest())

    @classmethod
    async def watched(cls, address: str) -> "Health":
        """Return what is said from now on, by a daemon that is well."""
        health = cls(address)
        assert (await health._stream.read()).status == SERVING
        return health

    async def rest(self) -> list[int]:
        """Return all that is said until the daemon ends."""
        said: list[int] = []
        while (word := await self._next()) is not None:
            said.append(word)
        await self._channel.close()
        return said

    async def _next(self) -> int | None:
        try:
            word = await self._stream.read()
        except grpc.aio.AioRpcError:
            return None
        return None if word is grpc.aio.EOF else word.status
