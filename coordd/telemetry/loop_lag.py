"""How late the event loop is: what everybody who asks waits for besides their own work."""

import asyncio
import time
from typing import Final

from coordd.core.limits import MILLISECOND, SECOND
from coordd.telemetry import catalogue
from coordd.telemetry.instruments import Copy, Histogram

_INTERVAL_NS: Final = 250 * MILLISECOND


class LoopLag:
    """Looks how late it is called, four times a second. `start`, then `stop`."""

    def __init__(self) -> None:
        self._lag = Histogram(catalogue.LOOP_LAG)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._look_later()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def copy(self) -> Copy:
        """Return how it stands."""
        return self._lag.copy()

    def _look_later(self) -> None:
        # Not the loop's own time: uvloop's is in whole milliseconds.
        due_ns = time.monotonic_ns() + _INTERVAL_NS
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL_NS / SECOND, self._look, due_ns)

    def _look(self, due_ns: int) -> None:
        self._lag.observe(max(0, time.monotonic_ns() - due_ns))
        self._look_later()
