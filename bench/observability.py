"""`python -m bench.observability`: what being watched costs the daemon; one JSON object on stdout.

The daemon's CPU time for one durable pair of RequestLock and ReleaseLock, with nothing on, with metrics, and
with metrics and every call traced. The modes take turns, so that whatever else the machine does meets them
alike. And the CPU time of a scrape on the event loop, by how much is live.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from bench.daemon import serving
from bench.figures import Figure, figure, machine
from bench.wire import load
from coordd.config import Settings
from coordd.core.commands import RequestLock
from coordd.core.outcomes import Granted
from coordd.core.records import Lock
from coordd.engine import Engine
from coordd.rpc import Call
from coordd.store.sqlite import SqliteStore
from coordd.telemetry.metrics import Metrics
from coordd.telemetry.states import World

_METRICS: Final = '\n[metrics]\naddress = "127.0.0.1:0"\n'
_MODES: Final = {"off": "", "metrics": _METRICS, "metrics_and_traces": _METRICS + "\n[traces]\notlp = true\n"}
_CLIENTS: Final = 16
_LOCKS: Final = (0, 100_000)
_ENDPOINTS: Final = 20


def main() -> int:
    """Measure, print, and return 0 whatever the figures are."""
    options = _parser().parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    facts = machine()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-") as made:
        folder = Path(made).resolve()
        figures = _pairs(folder, options.seconds, options.runs)
        figures["metrics_us_per_granted_lock"] = figure([_counting() for _ in range(options.runs)], "us")
        for locks in _LOCKS:
            took_us = asyncio.run(_scrapes(folder / f"{locks}.db", locks, options.runs))
            figures[f"scrape_on_loop_us_with_{locks}_locks"] = figure(took_us, "us")
    print(json.dumps({"machine": facts, "figures": msgspec.to_builtins(figures)}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.observability", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("var"), help="for data files (default: var)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a run (default: 3)")
    parser.add_argument("--runs", type=int, default=7, help="runs of each mode (default: 7)")
    return parser


def _pairs(folder: Path, run_s: float, runs: int) -> dict[str, Figure]:
    cpu_us: dict[str, list[float]] = {mode: [] for mode in _MODES}
    with ExitStack() as stack:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{stack.enter_context(_collector())}"
        daemons = {
            mode: stack.enter_context(serving(folder / f"{mode}.db", more)) for mode, more in _MODES.items()
        }
        for _ in range(runs):
            for mode, daemon in daemons.items():
                cpu_us[mode].append(asyncio.run(load(daemon, _CLIENTS, run_s)).daemon_us_per_pair)
                print(f"  {mode:<20} {cpu_us[mode][-1]:>8.0f} us/pair", file=sys.stderr, flush=True)
    return {f"pair_cpu_us_{mode}": figure(each, "us/pair") for mode, each in cpu_us.items()}


class _Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans and forgets them."""

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  -- gRPC's name
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def _collector() -> Iterator[str]:
    """Give the address of a collector that runs in this process."""
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Collector(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def _counting(count: int = 50_000) -> float:
    """Return the CPU time that metrics add to one call that takes a lock, its commit aside (us)."""
    metrics = Metrics("bench", lambda: True)
    calls, engine = metrics.calls, metrics.observer("default")
    call = Call("/coordd.v1.EngagementService/RequestLock", None, 0, None)
    command = RequestLock(item="i", kind="analysis", worker="w")
    lock = Lock(
        token=1, item="i", kind="analysis", worker="w", granted_at=1, expires_at=2, ttl_ns=1, request_id=""
    )
    outcome = Granted(grant=lock)
    began = time.thread_time_ns()
    for number in range(count):
        calls.begun(call)
        engine.answered(command, outcome, asked_at=number, at=number + 1_000_000, batch=1)
        calls.ended(call, 1_000_000)
    return (time.thread_time_ns() - began) / 1e3 / count


async def _scrapes(path: Path, locks: int, runs: int) -> list[float]:
    """Return the CPU time of some scrapes on the event loop (us), while so many locks are live."""
    limits = {f"endpoint-{number}": {"windows": {"15m": 100, "1h": 400}} for number in range(_ENDPOINTS)}
    settings = Settings.model_validate({"limits": limits})
    metrics = Metrics("bench", lambda: True)
    engine = Engine(settings.rules(), SqliteStore(path), observer=metrics.observer("default"))
    metrics.show(World("default", engine, path, lambda: True))
    await engine.start()
    requests = (RequestLock(item=f"i{number}", kind="analysis", worker="w") for number in range(locks))
    while batch := [request for _, request in zip(range(1_000), requests, strict=False)]:
        await asyncio.gather(*map(engine.submit, batch))
    took_us = []
    for _ in range(runs):
        began = time.thread_time_ns()
        metrics.scrape()
        took_us.append((time.thread_time_ns() - began) / 1e3)
    await engine.stop()
    return took_us


if __name__ == "__main__":
    sys.exit(main())
