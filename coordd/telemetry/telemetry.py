"""What the daemon gives its parts to be seen by, as the configuration says, and what it opens and closes.

Owns: which observers there are. Where nothing is switched on there are none, and nothing is paid.
"""

from collections.abc import Callable
from pathlib import Path

from coordd.config import Settings
from coordd.engine import CommitObserver, Engine, Observer
from coordd.rpc import CallObserver
from coordd.telemetry.commit_times import CommitTimes
from coordd.telemetry.metrics import Metrics
from coordd.telemetry.states import World


class Telemetry:
    """The observers of one daemon. `start` once, then `stop`.

    Args: version: of the daemon. is_serving: whether its health says so.
    """

    def __init__(self, settings: Settings, version: str, is_serving: Callable[[], bool]) -> None:
        self._settings = settings
        self._metrics = Metrics(version, is_serving) if settings.metrics.address else None
        self._slow_commit_ns = settings.log.slow_commit_ns

    @property
    def metrics_address(self) -> str:
        """Where the metrics are; empty: nowhere."""
        return self._metrics.address if self._metrics is not None else ""

    @property
    def calls(self) -> CallObserver | None:
        """What sees the calls."""
        return self._metrics.calls if self._metrics is not None else None

    def of(self, namespace: str) -> tuple[Observer | None, CommitObserver]:
        """Return what sees the decisions of a namespace's engine, and its commits."""
        observer = self._metrics.observer(namespace) if self._metrics is not None else None
        return observer, CommitTimes(self._slow_commit_ns, observer)

    def show(self, namespace: str, engine: Engine, data: Path, is_usable: Callable[[], bool]) -> None:
        """Show what there is in a namespace, too. Args: data: its file. is_usable: whether it is served."""
        if self._metrics is not None:
            self._metrics.show(World(namespace, engine, data, is_usable))

    async def start(self) -> None:
        """Open what is to be opened. Raises: OSError."""
        if self._metrics is not None:
            await self._metrics.start(self._settings.metrics.address)

    async def stop(self) -> None:
        """Close it."""
        if self._metrics is not None:
            await self._metrics.stop()
