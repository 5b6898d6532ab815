"""`python -m bench.namespaces`: what a noisy fleet costs its neighbour; one JSON object on stdout.

Two namespaces in one real daemon. The quiet fleet makes pairs of RequestLock and ReleaseLock, a few at a
time and with pauses; the noisy one, processes of its own, asks as much as it can and heeds no refusal. It
is nice: on machines of its own it would take no processor time from the daemon but by what it asks.
Measured are the quiet fleet's pairs alone, beside the noise, and beside it with a quota on the noise.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import grpc
import msgspec
from msgspec import Struct

from bench.daemon import Serving, serving
from bench.figures import Figure, figure, machine
from bench.workload import PLAIN_KIND
from coordd.v1 import engagement_pb2 as pb
from coordd.v1 import engagement_pb2_grpc

_NOISY: Final = "noisy"
_QUIET_WORKERS: Final = 4
_QUIET_PAUSE_S: Final = 0.02
_NOISE_PROCESSES: Final = 2
_NOISE_AT_ONCE: Final = 128
_NICE: Final = 10
_NOISE_WARM_UP_S: Final = 1.0
_QUOTA: Final = "[quotas]\ncalls = 16\ncalls_per_second = 200\n"


class Run(Struct, kw_only=True):
    """One run: how long each of the quiet fleet's pairs took (ms, sorted), and how many failed."""

    took_ms: list[float]
    failed: int

    def quantile(self, part: float) -> float:
        """Return the time that `part` of the pairs did not exceed, ms."""
        return self.took_ms[min(int(part * len(self.took_ms)), len(self.took_ms) - 1)]


def main() -> int:
    """Measure, print, and return 0 whatever the figures are."""
    options = _parser().parse_args()
    if options.noise:
        asyncio.run(_noise(options.noise))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    facts = machine()
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-") as folder:
        for name, quota, is_noisy in (
            ("alone", "", False),
            ("beside_noise", "", True),
            ("beside_noise_with_quota", _QUOTA, True),
        ):
            figures |= _measured(name, Path(folder).resolve() / name, quota, options, is_noisy=is_noisy)
            print(
                name,
                {key: each.value for key, each in figures.items() if key.startswith(f"quiet_{name}_p")},
                file=sys.stderr,
            )
    print(msgspec.json.encode({"machine": facts, "figures": figures}).decode())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.namespaces", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one run (default: 5)")
    parser.add_argument("--runs", type=int, default=3, help="of each case (default: 3)")
    parser.add_argument("--folder", type=Path, default=Path("var"), help="where data files are made")
    parser.add_argument("--noise", metavar="ADDRESS", help=argparse.SUPPRESS)
    return parser


def _measured(
    name: str, folder: Path, quota: str, options: argparse.Namespace, *, is_noisy: bool
) -> dict[str, Figure]:
    folder.mkdir()
    (folder / f"{_NOISY}.toml").write_text(quota, "utf-8")
    with ExitStack() as stack:
        daemon = stack.enter_context(
            serving(folder / "quiet.db", f'[namespaces.{_NOISY}]\nfile = "{_NOISY}.toml"\n')
        )
        if is_noisy:
            stack.enter_context(_noisy(daemon))
        runs = [asyncio.run(_quiet(daemon, options.seconds)) for _ in range(options.runs)]
    return {
        f"quiet_{name}_p50_ms": figure([run.quantile(0.5) for run in runs], "ms"),
        f"quiet_{name}_p99_ms": figure([run.quantile(0.99) for run in runs], "ms"),
        f"quiet_{name}_pairs_per_s": figure([len(run.took_ms) / options.seconds for run in runs], "pairs/s"),
        f"quiet_{name}_failed": figure([float(run.failed) for run in runs], "pairs"),
    }


@contextmanager
def _noisy(daemon: Serving) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.namespaces", "--noise", daemon.address]
    processes = [subprocess.Popen(command) for _ in range(_NOISE_PROCESSES)]
    time.sleep(_NOISE_WARM_UP_S)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def _noise(address: str) -> None:
    os.nice(_NICE)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = engagement_pb2_grpc.EngagementServiceStub(channel)
        await asyncio.gather(*(_shout(stub, f"worker-{index}") for index in range(_NOISE_AT_ONCE)))


async def _shout(stub: "engagement_pb2_grpc.EngagementServiceAsyncStub", worker: str) -> None:
    metadata = (("coordd-namespace", _NOISY),)
    request = pb.RequestLockRequest(item=f"tweet:{worker}", worker=worker, kind=PLAIN_KIND)
    while True:
        try:
            await stub.RequestLock(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                return


async def _quiet(daemon: Serving, seconds: float) -> Run:
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        stub = engagement_pb2_grpc.EngagementServiceStub(channel)
        until, run = time.perf_counter() + seconds, Run(took_ms=[], failed=0)
        names = [f"quiet-{time.time_ns()}-{index}" for index in range(_QUIET_WORKERS)]
        await asyncio.gather(*(_work(stub, name, until, run) for name in names))
    run.took_ms.sort()
    return run


async def _work(
    stub: "engagement_pb2_grpc.EngagementServiceAsyncStub", worker: str, until: float, run: Run
) -> None:
    while (began := time.perf_counter()) < until:
        try:
            await _pair(stub, worker)
        except grpc.aio.AioRpcError:
            run.failed += 1
        else:
            run.took_ms.append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(_QUIET_PAUSE_S)


async def _pair(stub: "engagement_pb2_grpc.EngagementServiceAsyncStub", worker: str) -> None:
    item = f"tweet:{worker}"
    reply = await stub.RequestLock(pb.RequestLockRequest(item=item, worker=worker, kind=PLAIN_KIND))
    token = reply.granted.fencing_token
    await stub.ReleaseLock(
        pb.ReleaseLockRequest(item=item, worker=worker, fencing_token=token, outcome=pb.OUTCOME_SUCCESS)
    )


if __name__ == "__main__":
    sys.exit(main())
