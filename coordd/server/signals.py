"""What the daemon is told by signals.

Rules: the first SIGTERM or SIGINT stops it, the second has it not wait. SIGHUP has it read its configuration
again; but where it was started from a terminal that is gone now, that is what SIGHUP says, and it stops. They
count from before there is anything to stop: what comes early is done as soon as it can be.
"""

import asyncio
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """Events: `stop` is set by the first signal to stop, `hurry` by the second, `reload` by SIGHUP."""

    def __init__(self) -> None:
        self.stop, self.hurry, self.reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._has_terminal = _has_terminal()

    def told_to_stop(self) -> None:
        """Note a SIGTERM or SIGINT."""
        (self.hurry if self.stop.is_set() else self.stop).set()

    def told_to_reload(self) -> None:
        """Note a SIGHUP."""
        if self._has_terminal and not _has_terminal():
            self.told_to_stop()
        else:
            self.reload.set()


def _has_terminal() -> bool:
    try:
        termios.tcgetattr(sys.stderr.fileno())
    except (OSError, ValueError, termios.error):
        return False
    return True


@contextmanager
def signals() -> Iterator[Signals]:
    """Take the signals of this process meanwhile."""
    told, loop = Signals(), asyncio.get_running_loop()
    handlers = {
        signal.SIGTERM: told.told_to_stop,
        signal.SIGINT: told.told_to_stop,
        signal.SIGHUP: told.told_to_reload,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield told
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
