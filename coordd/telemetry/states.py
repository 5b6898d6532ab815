"""What there is now, as gauges: of every namespace what it holds, its endpoints, its pools, its file.

Owns: which view of the machine is which metric. Rules: looking costs O(endpoints + pools), never O(items),
and waits for nothing; what is made of it is made elsewhere. Must not know: how it is sent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from msgspec import Struct
from prometheus_client.metrics_core import Metric as Family

from coordd.core.limits import SECOND
from coordd.core.machine import Machine
from coordd.core.views import Counts, GateState, LimitView, PoolView
from coordd.engine import Engine
from coordd.rpc import Admission
from coordd.rpc.messages import health
from coordd.telemetry import catalogue as names
from coordd.telemetry.decisions import CLASSES, COMPONENTS
from coordd.telemetry.instruments import Labels, Metric, family
from coordd.v1 import rate_limit_pb2

_State = TypeVar("_State")
_GATES: Final = {state: state.name.lower() for state in GateState}
_HEALTHS: Final = {
    value: name.removeprefix("HEALTH_").lower() for name, value in rate_limit_pb2.Health.items() if value
}


class World(NamedTuple):
    """A namespace that is shown. `data`: its file; `is_usable`: whether it is served."""

    name: str
    engine: Engine
    data: Path
    is_usable: Callable[[], bool]


class Seen(Struct, frozen=True, kw_only=True):
    """What there was in one namespace at one instant."""

    namespace: str
    counts: Counts
    waiters: Mapping[tuple[type, int], int]
    limits: list[LimitView]
    pools: list[PoolView]
    is_draining: bool
    has_failed: bool
    data: Path


def look(world: World) -> Seen:
    """Return what there is now."""

    def view(machine: Machine, now: int) -> Seen:
        return Seen(
            namespace=world.name,
            counts=machine.counts(),
            waiters=machine.waiters(),
            limits=machine.limits(now),
            pools=machine.pools(now),
            is_draining=world.engine.is_draining,
            has_failed=not world.is_usable(),
            data=world.data,
        )

    return world.engine.look(view)


class _Gauges:
    """Values by metric and labels, as they come."""

    def __init__(self) -> None:
        self._values: dict[str, dict[Labels, float]] = {}

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        self._values.setdefault(metric.name, {})[labels] = value

    def families(self) -> Iterator[Family]:
        for name, values in self._values.items():
            yield family(names.METRICS[name], values)


def admission(seen: Admission | None) -> Iterator[Family]:
    """Yield what is taken on, and what is not."""
    if seen is not None:
        yield family(names.ADMITTED, {(): seen.in_progress + seen.critical})
        yield family(names.ADMISSION_LIMIT, {(): seen.limit})
        yield family(names.ADMISSION_REFUSALS, {(): seen.refused})


def families(seen: Iterable[Seen]) -> Iterator[Family]:
    """Yield the gauges of every namespace."""
    gauges = _Gauges()
    for each in seen:
        _holdings(gauges, each)
        for limit in each.limits:
            _endpoint(gauges, each.namespace, limit)
        for pool in each.pools:
            _pool(gauges, each.namespace, pool)
        _store(gauges, each)
    return gauges.families()


def _holdings(gauges: _Gauges, seen: Seen) -> None:
    counts, namespace = seen.counts, seen.namespace
    gauges.set(names.LOCKS, counts.locks, namespace)
    gauges.set(names.RESERVATIONS, counts.reservations, namespace)
    gauges.set(names.PERMITS, counts.permits, namespace)
    gauges.set(names.BOOKINGS, counts.bookings, namespace)
    gauges.set(names.BUNDLES, counts.bundles, namespace)
    gauges.set(names.SESSIONS, counts.sessions, namespace)
    gauges.set(names.ESCALATIONS, counts.escalations, namespace)
    gauges.set(names.WAITERS_AWAY, counts.waiters_away, namespace)
    for (command, priority), count in seen.waiters.items():
        gauges.set(names.WAITERS, count, namespace, COMPONENTS[command], CLASSES[priority])


def _endpoint(gauges: _Gauges, namespace: str, limit: LimitView) -> None:
    of = (namespace, limit.name)
    for window in limit.windows:
        length = f"{window.length_ns / SECOND:g}s"
        gauges.set(names.WINDOW_USED, window.used, *of, length)
        gauges.set(names.WINDOW_LIMIT, window.limit, *of, length)
    gauges.set(names.UTILISATION, limit.utilisation, *of)
    is_shut = limit.gate.state is GateState.CLOSED
    gauges.set(names.REMAINING, 0 if is_shut else limit.remaining, *of)
    _set_of(gauges, names.HEALTH, of, _HEALTHS, health(limit.utilisation, limit.gate.state))
    _set_of(gauges, names.GATE, of, _GATES, limit.gate.state)
    gauges.set(names.QUEUED, limit.queued, *of)
    gauges.set(names.ENDPOINT_BOOKINGS, limit.bookings, *of)
    gauges.set(names.ACTIVE_WORKERS, limit.active_workers, *of)
    gauges.set(names.UPSTREAM_REFUSALS, limit.violations, *of)
    gauges.set(names.MALFORMED, limit.malformed_headers, *of)
    if limit.scheduling_error_ns is not None:
        gauges.set(names.SCHEDULING_ERROR, limit.scheduling_error_ns, *of)


def _set_of(gauges: _Gauges, metric: Metric, of: Labels, all_: Mapping[_State, str], holds: _State) -> None:
    for value, name in all_.items():
        gauges.set(metric, int(value == holds), *of, name)


def _pool(gauges: _Gauges, namespace: str, pool: PoolView) -> None:
    gauges.set(names.POOL_USED, pool.used, namespace, pool.name)
    gauges.set(names.POOL_CAPACITY, pool.capacity, namespace, pool.name)
    gauges.set(names.POOL_QUEUED, pool.queued, namespace, pool.name)


def _store(gauges: _Gauges, seen: Seen) -> None:
    gauges.set(names.DRAINING, seen.is_draining, seen.namespace)
    gauges.set(names.FAILED, seen.has_failed, seen.namespace)
    for kind, suffix in (("data", ""), ("log", "-wal")):
        gauges.set(
            names.STORE_BYTES, _size(seen.data.with_name(seen.data.name + suffix)), seen.namespace, kind
        )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
