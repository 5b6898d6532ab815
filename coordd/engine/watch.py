"""What happens, for whoever watches: every outcome and notice, after its commit.

Owns: one queue for each watcher, bounded in bytes. One that reads too slowly misses events and is told how
many; nobody waits for it.
"""

from collections import deque
from sys import getsizeof
from types import TracebackType
from typing import Final

from msgspec import Struct

from coordd.core.commands import RecordUsage
from coordd.core.machine import Command
from coordd.core.outcomes import Notice, Outcome
from coordd.engine.signal import Signal

# 10,000 events of the usual size, about a second of a busy daemon's; with headers as long as they may be, 25.
BYTES_PER_WATCH_MAX: Final = 10 << 20
# What an event, its command and the record are reckoned at, headers aside: most take less.
BYTES_PER_EVENT: Final = 1 << 10
# What a pair of strings takes beside them: a tuple, and its place in the tuple of all.
_BYTES_PER_PAIR: Final = 64


class DrainChanged(Struct, frozen=True, kw_only=True):
    """An operator has stopped the daemon from granting, or let it grant again. `reason`: may be empty."""

    is_draining: bool
    reason: str


class Event(Struct, frozen=True, kw_only=True):
    """At `at` (ns), `command` (None.

    Time passed) came out as `outcome`; `missed` events before it were dropped.
    """

    at: int
    command: Command | None
    outcome: Outcome | Notice | DrainChanged
    missed: int = 0

    def size(self) -> int:
        """Return about how many bytes it holds in memory."""
        headers = self.command.headers if isinstance(self.command, RecordUsage) else ()
        pairs = sum(_BYTES_PER_PAIR + getsizeof(name) + getsizeof(value) for name, value in headers)
        return BYTES_PER_EVENT + pairs


class Watch:
    """Every event from now on: `async with engine.watch() as watch: async for event in watch`."""

    __slots__ = ("_bytes", "_error", "_events", "_missed", "_signal", "_watchers")

    def __init__(self, watchers: "dict[Watch, None]") -> None:
        self._watchers = watchers
        # Each with its size, and the sum of the sizes.
        self._events: deque[tuple[Event, int]] = deque()
        self._bytes = 0
        self._missed = 0
        self._signal = Signal()
        self._error: Exception | None = None

    async def __aenter__(self) -> "Watch":
        self._watchers[self] = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchers.pop(self, None)

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._error is not None:
                raise self._error
            await self._signal.wait()
        event, size = self._events.popleft()
        self._bytes -= size
        return event

    def put(self, event: Event) -> None:
        """Show an event, or count it as missed."""
        size = event.size()
        if self._bytes + size > BYTES_PER_WATCH_MAX:
            self._missed += 1
            return
        if self._missed:
            event = Event(at=event.at, command=event.command, outcome=event.outcome, missed=self._missed)
            self._missed = 0
        self._events.append((event, size))
        self._bytes += size
        self._signal.set()

    def fail(self, error: Exception) -> None:
        """End the watch once what has happened is read. The first error counts."""
        self._error = self._error or error
        self._signal.set()
