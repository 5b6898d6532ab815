"""`python -m bench`: measures everything in turn; progress on stderr, one JSON object on stdout."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from bench import core, memory, simulation, startup, wire
from bench.figures import Figure, machine


class Sizes(Struct, kw_only=True, frozen=True):
    """How much is measured."""

    runs: int
    lock_pairs: int
    permits: int
    waiters: tuple[int, ...]
    grants: int
    wire_s: float
    locks_in_memory: int
    waiters_in_memory: int
    records: int
    fleets: tuple[int, ...]


FULL: Final = Sizes(
    runs=3,
    lock_pairs=100_000,
    permits=300_000,
    waiters=(1, 1_000, 100_000),
    grants=2_000,
    wire_s=5.0,
    locks_in_memory=500_000,
    waiters_in_memory=100_000,
    records=1_000_000,
    fleets=(6, 12),
)
# Does everything once, to show that it works; its figures mean nothing.
QUICK: Final = Sizes(
    runs=1,
    lock_pairs=2_000,
    permits=2_000,
    waiters=(1, 100, 1_000),
    grants=100,
    wire_s=0.3,
    locks_in_memory=10_000,
    waiters_in_memory=10_000,
    records=5_000,
    fleets=(1,),
)

Measure = Callable[[Sizes, Path], Mapping[str, Figure]]
# The core first, while the process is small.
_MEASURES: Final[dict[str, Measure]] = {
    "lock decisions": lambda sizes, _: core.lock_pairs(sizes.lock_pairs, sizes.runs),
    "permit decisions": lambda sizes, _: core.permit_decisions(sizes.permits, sizes.runs),
    "grants to waiters": lambda sizes, _: core.grant_costs(sizes.waiters, sizes.grants, sizes.runs),
    "memory": lambda sizes, _: memory.bytes_each(sizes.locks_in_memory, sizes.waiters_in_memory, sizes.runs),
    "the disk": lambda sizes, folder: wire.disk_sync(folder, sizes.runs),
    "durable pairs over gRPC": lambda sizes, folder: wire.durable_pairs(folder, sizes.wire_s, sizes.runs),
    "simulation": lambda sizes, _: simulation.simulate_tweets(sizes.fleets, sizes.runs),
    "start-up": lambda sizes, folder: startup.start_up(folder, sizes.records, sizes.runs),
}


def main() -> int:
    """Measure, print, and return 0 whatever the figures are."""
    options = _parser().parse_args()
    began = time.monotonic()
    facts = machine()
    figures: dict[str, Figure] = {}
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-") as folder:
        for name, measure in _MEASURES.items():
            print(f"{name} ...", file=sys.stderr, flush=True)
            measured = measure(QUICK if options.quick else FULL, Path(folder).resolve())
            figures.update(measured)
            for key, each in measured.items():
                print(f"  {_line(key, each)}", file=sys.stderr, flush=True)
    report = {
        "quick": options.quick,
        "seconds": round(time.monotonic() - began, 1),
        "machine": facts,
        "figures": figures,
    }
    print(msgspec.json.encode(report).decode())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="show that it works; the figures mean nothing")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("var"),
        help="where data files are made, and deleted again; on the disk to be measured (default: var)",
    )
    return parser


def _line(name: str, measured: Figure) -> str:
    target = ""
    if measured.at_least is not None:
        target = f"  (at least {measured.at_least:g}: {'yes' if measured.passed else 'NO'})"
    if measured.at_most is not None:
        target = f"  (at most {measured.at_most:g}: {'yes' if measured.passed else 'NO'})"
    return f"{name:<48} {measured.value:>12,g} {measured.unit}{target}"
