"""The daemon over gRPC: durable pairs of RequestLock and ReleaseLock, asked for by another process."""

import asyncio
import os
import statistics
import time
from pathlib import Path
from typing import Final

import grpc
import psutil
from msgspec import Struct

from bench.daemon import Serving, serving
from bench.figures import Figure, figure
from bench.workload import PLAIN_KIND
from coordd.v1 import engagement_pb2 as pb
from coordd.v1 import engagement_pb2_grpc

_CONCURRENCIES: Final = (1, 64)
_FSYNCS: Final = 200
_BLOCK: Final = 4_096


class Run(Struct, kw_only=True):
    """One run.

    Pairs a second, how long each took (ms, sorted), and the CPU time the daemon spent on a pair (us).
    """

    pairs_per_s: float
    took_ms: list[float]
    daemon_us_per_pair: float

    def quantile(self, part: float) -> float:
        """Return the time that `part` of the pairs did not exceed, ms."""
        return self.took_ms[min(int(part * len(self.took_ms)), len(self.took_ms) - 1)]


def durable_pairs(folder: Path, run_s: float, runs: int) -> dict[str, Figure]:
    """Return rates and latencies of durable pairs at each concurrency."""
    figures: dict[str, Figure] = {}
    with serving(folder / "wire.db") as daemon:
        for concurrency in _CONCURRENCIES:
            done = [asyncio.run(load(daemon, concurrency, run_s)) for _ in range(runs)]
            name = f"durable_lock_pairs_at_{concurrency}"
            figures[f"{name}_per_s"] = figure([run.pairs_per_s for run in done], "pairs/s")
            figures[f"{name}_p50_ms"] = figure([run.quantile(0.50) for run in done], "ms")
            figures[f"{name}_p99_ms"] = figure([run.quantile(0.99) for run in done], "ms")
            figures[f"{name}_daemon_cpu_us"] = figure([run.daemon_us_per_pair for run in done], "us/pair")
    return figures


def disk_sync(folder: Path, runs: int) -> dict[str, Figure]:
    """Return what the disk takes to make 4 KiB durable, over what is there: a commit takes more."""
    return {"disk_sync_ms": figure([_sync_ms(folder / "sync") for _ in range(runs)], "ms")}


def _sync_ms(path: Path) -> float:
    took = []
    with path.open("wb", buffering=0) as file:
        file.write(bytes(_BLOCK * _FSYNCS))
        os.fsync(file.fileno())
        file.seek(0)
        for _ in range(_FSYNCS):
            file.write(b"x" * _BLOCK)
            began = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter_ns() - began)
    return statistics.median(took) / 1e6


async def load(daemon: Serving, concurrency: int, run_s: float) -> Run:
    """Let so many clients make one pair after another, for `run_s` seconds."""
    process = psutil.Process(daemon.pid)
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        stub = engagement_pb2_grpc.EngagementServiceStub(channel)
        await _pair(stub, f"warm-up-{time.time_ns()}", 0)
        cpu_s = sum(process.cpu_times()[:2])
        began = time.perf_counter()
        until = began + run_s
        # Names of their own for each run: the daemon remembers request ids.
        run = time.time_ns()
        workers = [_worker(stub, f"worker-{run}-{index}", until) for index in range(concurrency)]
        took_ms = sorted(took for each in await asyncio.gather(*workers) for took in each)
        seconds = time.perf_counter() - began
        cpu_s = sum(process.cpu_times()[:2]) - cpu_s
    return Run(
        pairs_per_s=len(took_ms) / seconds,
        took_ms=took_ms,
        daemon_us_per_pair=cpu_s * 1e6 / len(took_ms),
    )


async def _worker(
    stub: "engagement_pb2_grpc.EngagementServiceAsyncStub", worker: str, until: float
) -> list[float]:
    took_ms = []
    index = 0
    while (began := time.perf_counter()) < until:
        index += 1
        await _pair(stub, worker, index)
        took_ms.append((time.perf_counter() - began) * 1e3)
    return took_ms


async def _pair(stub: "engagement_pb2_grpc.EngagementServiceAsyncStub", worker: str, index: int) -> None:
    item = f"tweet:{worker}:{index}"
    reply = await stub.RequestLock(
        pb.RequestLockRequest(item=item, worker=worker, kind=PLAIN_KIND, request_id=f"request-{index}")
    )
    await stub.ReleaseLock(
        pb.ReleaseLockRequest(
            item=item,
            worker=worker,
            fencing_token=reply.granted.fencing_token,
            outcome=pb.OUTCOME_SUCCESS,
        )
    )
