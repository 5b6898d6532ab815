"""What the daemon gives its parts to be seen by, as the configuration says, and what it opens and closes.

Owns: which observers there are. Where nothing is switched on there are none, and nothing is paid.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from coordd.config import Settings
from coordd.engine import CommitObserver, Engine, Observer
from coordd.rpc import Admission, CallObserver
from coordd.telemetry.commit_times import CommitTimes
from coordd.telemetry.metrics import Metrics
from coordd.telemetry.several import CallObservers, CommitObservers, Observers
from coordd.telemetry.states import World

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Seer = TypeVar("Seer")


class Uninstalled(Exception):
    """Something is switched on that is not installed; says what, in one line."""


class Telemetry:
    """The observers of one daemon. `start` once, then `stop`.

    Args:
        version: of the daemon.
        is_serving: whether its health says so.
        provider: of tracers, instead of one that sends what `OTEL_*` says, as for tests.
    Raises: Uninstalled.
    """

    def __init__(
        self,
        settings: Settings,
        version: str,
        is_serving: Callable[[], bool],
        provider: "TracerProvider | None" = None,
    ) -> None:
        self._settings = settings
        self._metrics = Metrics(version, is_serving) if settings.metrics.address else None
        if provider is None and settings.traces.otlp:
            provider = _exporting_provider(version)
        self._provider = provider

    @property
    def metrics_address(self) -> str:
        """Where the metrics are; empty: nowhere."""
        return self._metrics.address if self._metrics is not None else ""

    @property
    def calls(self) -> CallObserver | None:
        """What sees the calls."""
        observers: list[CallObserver] = [self._metrics.calls] if self._metrics is not None else []
        if self._provider is not None:
            from coordd.telemetry.traces import CallTraces  # noqa: PLC0415  -- only with the extra

            observers.append(CallTraces(self._provider))
        return _one(observers, CallObservers)

    def of(self, namespace: str) -> tuple[Observer | None, CommitObserver | None]:
        """Return what sees the decisions of a namespace's engine, and its commits."""
        observers: list[Observer] = []
        commits: list[CommitObserver] = []
        if self._settings.log.slow_commit_ns:
            commits.append(CommitTimes(self._settings.log.slow_commit_ns, namespace))
        if self._metrics is not None:
            metrics = self._metrics.observer(namespace)
            observers.append(metrics)
            commits.append(metrics)
        if self._provider is not None:
            from coordd.telemetry.traces import EngineTraces  # noqa: PLC0415  -- only with the extra

            traces = EngineTraces(self._provider, namespace)
            observers.append(traces)
            commits.append(traces)
        return _one(observers, Observers), _one(commits, CommitObservers)

    def show(self, namespace: str, engine: Engine, data: Path, is_usable: Callable[[], bool]) -> None:
        """Show what there is in a namespace, too. Args: data: its file. is_usable: whether it is served."""
        if self._metrics is not None:
            self._metrics.show(World(namespace, engine, data, is_usable))

    def show_admission(self, admission: Admission) -> None:
        """Show how many calls are taken on, too."""
        if self._metrics is not None:
            self._metrics.show_admission(admission)

    async def start(self) -> None:
        """Open what is to be opened. Raises: OSError."""
        if self._metrics is not None:
            await self._metrics.start(self._settings.metrics.address)

    async def stop(self) -> None:
        """Close it; send what has been seen."""
        if self._metrics is not None:
            await self._metrics.stop()
        if self._provider is not None:
            from coordd.telemetry.exporting import shut_down  # noqa: PLC0415  -- only with the extra

            await shut_down(self._provider)


def _one(observers: list[Seer], several: Callable[[list[Seer]], Seer]) -> Seer | None:
    if not observers:
        return None
    return observers[0] if len(observers) == 1 else several(observers)


def _exporting_provider(version: str) -> "TracerProvider":
    try:
        from coordd.telemetry.exporting import exporting_provider  # noqa: PLC0415  -- only with the extra
    except ImportError as error:
        raise Uninstalled("[traces] needs OpenTelemetry: install coordd[otel]") from error
    return exporting_provider(version)
