"""Time that only moves when a test says so."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

_START = datetime(2026, 1, 1, tzinfo=UTC)
# Turns of the event loop after which whatever a wake-up has set off has come to rest: each step from the
# daemon through a client to a test's task takes one. A loop has no way to say that nothing is left to do.
_SETTLE_TURNS = 50


class Timeline:
    """A clock, those who sleep by it, and the instants at which `on_due` is called."""

    def __init__(self, on_due: Callable[[], None]) -> None:
        self._on_due = on_due
        self._now_s = 0.0
        self._due: list[tuple[float, int, asyncio.Future[None] | None]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Returns seconds since the daemon was made."""
        return self._now_s

    def instant(self, at_s: float) -> Timestamp:
        """Returns `at_s` as an instant on the daemon's clock."""
        message = Timestamp()
        message.FromDatetime(_START)
        message.FromNanoseconds(message.ToNanoseconds() + round(at_s * 1e9))
        return message

    def wake_at(self, at_s: float) -> None:
        """Has `on_due` called when time reaches `at_s`."""
        heapq.heappush(self._due, (at_s, next(self._order), None))

    async def sleep(self, duration_s: float) -> None:
        """Returns once a test has advanced by `duration_s` seconds."""
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._due, (self._now_s + duration_s, next(self._order), woken))
        await woken

    async def advance(self, duration_s: float) -> None:
        """Moves time on, stopping at every instant at which something is due."""
        end_s = self._now_s + duration_s
        await _settle()
        while self._due and self._due[0][0] <= end_s:
            at_s, _, woken = heapq.heappop(self._due)
            self._now_s = max(self._now_s, at_s)
            self._on_due()
            if woken is not None and not woken.done():
                woken.set_result(None)
            await _settle()
        self._now_s = end_s
        self._on_due()
        await _settle()


async def _settle() -> None:
    for _ in range(_SETTLE_TURNS):
        await asyncio.sleep(0)
