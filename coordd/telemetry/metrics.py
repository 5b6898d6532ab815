"""What the daemon asks of telemetry: observers for its parts, and an endpoint that shows what they saw.

Owns: what a scrape is made of. Rule: on the event loop a scrape only copies numbers and looks at endpoints
and pools; the page is made in another thread.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

import structlog
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry

from coordd.rpc import Admission
from coordd.telemetry import catalogue, states
from coordd.telemetry.calls import CallMetrics
from coordd.telemetry.decisions import DecisionMetrics, EngineMetrics
from coordd.telemetry.endpoint import MetricsEndpoint
from coordd.telemetry.instruments import Copy, family
from coordd.telemetry.loop_lag import LoopLag

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Metrics:
    """Everything that is measured, and the endpoint that shows it.

    Args: is_serving: whether the daemon's health says so.
    """

    def __init__(self, version: str, is_serving: Callable[[], bool]) -> None:
        self._version = version
        self._is_serving = is_serving
        self.calls = CallMetrics()
        self._decisions = DecisionMetrics()
        self._lag = LoopLag()
        self._worlds: list[states.World] = []
        self._admission: Admission | None = None
        # What prometheus-client measures by itself; its own registry belongs to whoever embeds us.
        registry = CollectorRegistry()
        self._runtime: Final[tuple[Collector, ...]] = (
            ProcessCollector(registry=registry),
            GCCollector(registry=registry),
            PlatformCollector(registry=registry),
        )
        self._endpoint = MetricsEndpoint(self._page)

    @property
    def address(self) -> str:
        """Where the page is; empty before `start`."""
        return self._endpoint.address

    def observer(self, namespace: str) -> EngineMetrics:
        """Return what sees the decisions and commits of a namespace's engine."""
        return EngineMetrics(self._decisions, namespace)

    def show(self, world: states.World) -> None:
        """Show what there is in a namespace, too."""
        self._worlds.append(world)

    def show_admission(self, admission: Admission) -> None:
        """Show how many calls are taken on, and how many are not, too."""
        self._admission = admission

    async def start(self, address: str) -> None:
        """Listen. Raises: OSError."""
        await self._endpoint.start(address)
        self._lag.start()

    async def stop(self) -> None:
        """Show nothing any more."""
        self._lag.stop()
        await self._endpoint.stop()

    async def _page(self, accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        scrape = self.scrape()
        return await asyncio.to_thread(encode, scrape), content_type

    def scrape(self) -> Collector:
        """Return how everything stands, to be rendered anywhere.

        Cost: O(series + endpoints + pools), however much is held.
        """
        copies = [*self.calls.copies(), *self._decisions.copies(), self._lag.copy()]
        seen = [states.look(world) for world in self._worlds]
        own = [
            family(catalogue.BUILD, {(self._version,): 1}),
            family(catalogue.SERVING, {(): int(self._is_serving())}),
            *states.admission(self._admission),
        ]
        return _Scrape(own, copies, seen, self._runtime, asyncio.get_running_loop())


class _Scrape(Collector):
    """One scrape, to be rendered in another thread."""

    def __init__(
        self,
        own: list[Family],
        copies: list[Copy],
        seen: list[states.Seen],
        runtime: tuple[Collector, ...],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._own = own
        self._copies = copies
        self._seen = seen
        self._runtime = runtime
        self._loop = loop

    def collect(self) -> Iterator[Family]:
        """Yield every metric."""
        yield from self._own
        # Here and not on the event loop: there are as many as there are streams.
        yield family(catalogue.TASKS, {(): len(asyncio.all_tasks(self._loop))})
        for copy in self._copies:
            yield copy()
        yield from states.families(self._seen)
        for collector in self._runtime:
            yield from collector.collect()
