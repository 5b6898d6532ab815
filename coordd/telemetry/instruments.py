"""What is counted, and the forms it has: counters, gauges and histograms of whole numbers.

Owns: the counting, which costs an addition in a dict, and the copy that is taken of it for whoever renders
it. Rules: counted on the event loop and nowhere else, so without locks; a copy is rendered elsewhere.
Why not prometheus-client's own: each of theirs takes a lock and looks its labels up, and a decision is
counted in several.
Must not know: what is counted.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Literal

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

Labels = tuple[str, ...]
# What has been copied, still to be rendered, be it in another thread.
Copy = Callable[[], Family]


class Metric(Struct, frozen=True, kw_only=True):
    """A metric as it is declared. `bounds`: of a histogram; `scale`: so many of what is counted are one."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()
    scale: int = 1


class Counter:
    """Whole numbers that only rise, by labels. `known`: labels that are shown before they are counted."""

    __slots__ = ("_metric", "_values")

    def __init__(self, metric: Metric, *known: Labels) -> None:
        self._metric = metric
        self._values = dict.fromkeys(known, 0)

    def add(self, *labels: str) -> None:
        """Count one."""
        self._values[labels] = self._values.get(labels, 0) + 1

    def copy(self) -> Copy:
        """Return how it stands."""
        values = dict(self._values)
        return lambda: family(self._metric, values)


class Level:
    """Whole numbers that rise and fall, by labels."""

    __slots__ = ("_metric", "_values")

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._values: dict[Labels, int] = {}

    def add(self, change: int, *labels: str) -> None:
        """Let it rise or fall."""
        self._values[labels] = self._values.get(labels, 0) + change

    def copy(self) -> Copy:
        """Return how it stands."""
        values = dict(self._values)
        return lambda: family(self._metric, values)


class Buckets:
    """One series of a histogram: how many are up to each bound and above the one before, and their sum."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0

    def observe(self, value: int) -> None:
        """Take a value in."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class Histogram:
    """Series of whole numbers by labels."""

    __slots__ = ("_bounds", "_metric", "_series")

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._bounds = tuple(bound * metric.scale for bound in metric.bounds)
        self._series: dict[Labels, Buckets] = {} if metric.labels else {(): Buckets(self._bounds)}

    def observe(self, value: int, *labels: str) -> None:
        """Take a value in."""
        buckets = self._series.get(labels)
        if buckets is None:
            buckets = self._series[labels] = Buckets(self._bounds)
        buckets.observe(value)

    def copy(self) -> Copy:
        """Return how it stands."""
        series = {labels: (list(buckets.counts), buckets.sum) for labels, buckets in self._series.items()}
        return lambda: _histogram(self._metric, series)


def family(metric: Metric, values: Mapping[Labels, float]) -> Family:
    """Return a counter or gauge as prometheus-client takes it."""
    made = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
        metric.name, metric.help, labels=metric.labels
    )
    for labels, value in values.items():
        made.add_metric(labels, value / metric.scale)
    return made


def _histogram(metric: Metric, series: Mapping[Labels, tuple[list[int], int]]) -> Family:
    made = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    bounds = [*(repr(float(bound)) for bound in metric.bounds), "+Inf"]
    for labels, (counts, total) in series.items():
        buckets = [*zip(bounds, accumulate(counts), strict=True)]
        made.add_metric(labels, buckets=buckets, sum_value=total / metric.scale)
    return made
