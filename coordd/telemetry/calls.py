"""Calls, counted. Must not know: what they are about."""

from coordd.rpc import METHODS, Call
from coordd.telemetry import catalogue
from coordd.telemetry.instruments import Copy, Counter, Histogram, Level


class CallMetrics:
    """See `coordd.rpc.CallObserver`."""

    def __init__(self) -> None:
        self._labels = {method: _labels(method) for method in METHODS}
        self._calls = Counter(catalogue.CALLS, *((*labels, "OK") for labels in self._labels.values()))
        self._under_way = Level(catalogue.CALLS_UNDER_WAY)
        self._failures = Counter(catalogue.FAILURES)
        self._times = Histogram(catalogue.CALL_TIME)

    def begun(self, call: Call) -> None:
        """See CallObserver."""
        self._under_way.add(1, *self._labels[call.method])

    def ended(self, call: Call, took_ns: int) -> None:
        """See CallObserver."""
        labels = self._labels[call.method]
        self._under_way.add(-1, *labels)
        self._calls.add(*labels, call.code)
        if call.reason:
            self._failures.add(call.code, call.reason)
        # A stream lasts as long as what it waits for, which is measured where it is decided.
        if METHODS[call.method]:
            self._times.observe(took_ns, *labels)

    def copies(self) -> list[Copy]:
        """Return how everything stands."""
        return [each.copy() for each in (self._calls, self._under_way, self._failures, self._times)]


def _labels(method: str) -> tuple[str, str]:
    service, _, name = method.rpartition("/")
    return service.rpartition(".")[2], name
