"""The configuration read again while the daemon serves: all of it that can hold at once, or none.

Rules: what is refused is told problem by problem, and the old one stays; what differs is told setting by
setting; what takes a restart is told again at each reload until there is one.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog
from msgspec.structs import asdict

from coordd.config import ConfigError, Settings, differences
from coordd.engine import EngineError
from coordd.server.daemon import Daemon
from coordd.server.log import set_level
from coordd.server.tls import Misconfigured
from coordd.store.protocol import StoreError

_MILLION: Final = 1_000_000

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Reloader:
    """Takes over what is new in the configuration. Args: read: reads it; raises ConfigError."""

    def __init__(self, daemon: Daemon, settings: Settings, read: Callable[[], Settings]) -> None:
        self._daemon = daemon
        # What holds of the process until a restart, and what holds of all else.
        self._started_with = self.settings = settings
        self._read = read
        # For people, in a few words.
        self.status = f"serving on {daemon.address}"

    async def reload(self) -> None:
        """Read the configuration again, and go on with it; log what comes of it. Raises nothing."""
        began = time.monotonic_ns()
        try:
            settings = await asyncio.to_thread(self._read)
            await self._daemon.reload(settings)
        except ConfigError as refused:
            for problem in refused.problems:
                _logger.error("configuration refused", problem=problem)
            _logger.error("the old configuration stays")
        except Misconfigured as wrong:
            _logger.error("configuration refused", problem=str(wrong))
            _logger.error("the old configuration stays")
        except (EngineError, StoreError) as error:
            # Who has failed for good is told elsewhere.
            _logger.error("configuration not taken over in all namespaces", error=str(error))
        else:
            count = self._tell(settings)
            self.settings = settings
            ms = (time.monotonic_ns() - began) // _MILLION
            _logger.info("configuration reloaded", changed=count, ms=ms)
            set_level(settings.log.level)

    def _tell(self, settings: Settings) -> int:
        """Log what differs; return how many settings hold anew."""
        live = [each for each in differences(self.settings, settings) if each.is_live]
        for each in live:
            _logger.info("setting changed", **asdict(each))
        for each in differences(self._started_with, settings):
            if not each.is_live:
                _logger.warning("setting takes a restart", **asdict(each))
        return len(live)
