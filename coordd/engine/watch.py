"""What happens, for whoever watches: every outcome and notice, after its commit.

Owns: one bounded queue for each watcher. One that reads too slowly misses events and is told how many; nobody
waits for it.
"""

from collections import deque
from types import TracebackType
from typing import Final

from msgspec import Struct

from coordd.core.machine import Command
from coordd.core.outcomes import Notice, Outcome
from coordd.engine.signal import Signal

# About a second of a busy daemon's events, and 10 MiB at most for each watcher.
EVENTS_PER_WATCH_MAX: Final = 10_000


class Event(Struct, frozen=True, kw_only=True):
    """At `at` (ns), `command` (None.

    Time passed) came out as `outcome`; `missed` events before it were dropped.
    """

    at: int
    command: Command | None
    outcome: Outcome | Notice
    missed: int = 0


class Watch:
    """Every event from now on: `async with engine.watch() as watch: async for event in watch`."""

    __slots__ = ("_error", "_events", "_missed", "_signal", "_watchers")

    def __init__(self, watchers: "set[Watch]") -> None:
        self._watchers = watchers
        self._events: deque[Event] = deque()
        self._missed = 0
        self._signal = Signal()
        self._error: Exception | None = None

    async def __aenter__(self) -> "Watch":
        self._watchers.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchers.discard(self)

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._error is not None:
                raise self._error
            await self._signal.wait()
        return self._events.popleft()

    def put(self, event: Event) -> None:
        """Show an event, or count it as missed."""
        if len(self._events) >= EVENTS_PER_WATCH_MAX:
            self._missed += 1
            return
        if self._missed:
            event = Event(at=event.at, command=event.command, outcome=event.outcome, missed=self._missed)
            self._missed = 0
        self._events.append(event)
        self._signal.set()

    def fail(self, error: Exception) -> None:
        """End the watch once what has happened is read."""
        self._error = error
        self._signal.set()
