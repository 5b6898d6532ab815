"""What is told to the supervisor that has started the daemon, by systemd's protocol: datagrams to a socket.

Owns: the protocol, of which it takes a few lines: sd_notify(3), "Notes". Where no supervisor asks for it,
nothing is sent and nothing is waited for.
Must not know: the daemon.
"""

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

import structlog

# Pinged twice within what the supervisor waits for, as sd_watchdog_enabled(3) advises.
_PINGS_PER_WATCHDOG: Final = 2
_US: Final = 1_000_000

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Supervisor:
    """Whoever has started this process, if it wants to be told."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading `@` stands for the NUL of a socket that has a name but no file.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = _watchdog_s(environment) if address else 0.0
        self._watching: asyncio.Task[None] | None = None

    def ready(self, status: str) -> None:
        """Say that the daemon serves, or has read its configuration again; begin to show that it lives."""
        self._tell(f"READY=1\nSTATUS={status}")
        if self._watchdog_s and self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` says that it is done."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}\nSTATUS=reloading")

    def stopping(self, status: str) -> None:
        """Say that it stops, and go on to show that it lives."""
        self._tell(f"STOPPING=1\nSTATUS={status}")

    async def close(self) -> None:
        """Tell nothing more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        # On the event loop: one that stands still is what the watchdog is for.
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / _PINGS_PER_WATCHDOG)

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as telling:
                # One that does not listen must not hold us up.
                telling.settimeout(0)
                telling.sendto(state.encode(), self._address)
        except OSError as error:
            _logger.warning("the supervisor can't be told", error=str(error))


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """Return how long the supervisor waits for a sign of life, 0: it does not ask for one of this process."""
    us, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    is_meant = us.isdecimal() and pid in {"", str(os.getpid())}
    return int(us) / _US if is_meant else 0.0
