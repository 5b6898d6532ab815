"""`python -m bench.soak --minutes N`: does anything grow that should not? Exit code 1 if something does.

A real daemon under a mixed load in which everything is new all the time: connections, workers, sessions,
items, waits that time out, are cancelled or granted, bundles, permits, bookings, watchers. Every few seconds
its memory, file descriptors, threads, asyncio tasks, live records and files are looked at. After a warm-up,
in which all that is remembered for a time fills up, a line is fitted through each; what has grown by more
than it may is a leak.
"""

import argparse
import asyncio
import re
import socket
import sqlite3
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import plotille
import psutil
from msgspec import Struct

from bench.churn import Churn
from bench.daemon import Serving, serving
from bench.figures import machine

# All memories are short, so that each is full, and forgets as much as it takes in, long before the end.
_CONFIG: Final = """
[locks]
memory = "20s"
[kinds.analysis]
ttl = "10s"
[kinds.probe]
min_interval = "15s"
ttl = "10s"
[pools.slots]
capacity = 20
[types.slot]
pool = "slots"
ttl = "10s"
[limits.post]
windows = {{ "1s" = 200, "10s" = 1500 }}
use_within = "2s"
[requests]
memory = "20s"
[waits]
resume_grace = "5s"
[sharing]
active_window = "10s"
[sessions]
ttl = "5s"
[metrics]
address = "127.0.0.1:{metrics}"
"""
_EVERY_S: Final = 2.0
_WARM_UP: Final = 0.3
_MIB: Final = 1 << 20
# By how much each may grow over what is fitted, of its mean and besides: noise, and an allocator's habits.
_PART_MAX: Final = 0.05
_GROWTH_MAX: Final = {
    "rss_mib": 6.0,
    "fds": 12,
    "threads": 3,
    "tasks": 60,
    "records": 400,
    "store_mib_beside_history": 2.0,
    "log_mib": 8.0,
}
_HISTORY: Final = "engagements"


class Trend(Struct, kw_only=True):
    """What became of one thing: its mean, and how much the fitted line rises after the warm-up."""

    mean: float
    growth: float
    growth_max: float
    is_leak: bool


def main() -> int:
    """Load, look, fit; print JSON on stdout and plots on stderr; return 1 if something leaks."""
    options = _parser().parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="soak-") as folder:
        data, port = Path(folder).resolve() / "soak.db", _free_port()
        with serving(data, _CONFIG.format(metrics=port)) as daemon:
            samples, done = asyncio.run(_soak(daemon, data, port, options.minutes * 60))
    trends = {name: trend(name, *series) for name, series in _series(samples).items()}
    for name, series in _series(samples).items():
        print(_plot(name, *series), file=sys.stderr)
    leaks = [name for name, each in trends.items() if each.is_leak]
    report = {
        "minutes": options.minutes,
        "machine": machine(),
        "done": done,
        "samples": len(samples),
        "trends": trends,
        "leaks": leaks,
        "series": samples,
    }
    text = msgspec.json.encode(report).decode()
    print(text)
    if options.png:
        _draw(options.png, samples)
    return 1 if leaks else 0


async def _soak(
    daemon: Serving, data: Path, port: int, seconds: float
) -> tuple[list[dict[str, float]], dict[str, int]]:
    churn = Churn(daemon.address)
    samples = []
    async with churn:
        began = time.monotonic()
        while (at := time.monotonic() - began) < seconds:
            await asyncio.sleep(_EVERY_S)
            samples.append({"at_s": round(at, 1), **await asyncio.to_thread(_look, daemon.pid, data, port)})
    return samples, dict(sorted(churn.done.items()))


def _look(pid: int, data: Path, port: int) -> dict[str, float]:
    process = psutil.Process(pid)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        tasks = re.search(rb"^coordd_tasks (\S+)", page.read(), re.MULTILINE)
    assert tasks is not None  # noqa: S101  -- else it looks at something else
    records, beside = _stored(data)
    log = data.with_name(data.name + "-wal")
    return {
        "rss_mib": process.memory_info().rss / _MIB,
        "fds": process.num_fds(),
        "threads": process.num_threads(),
        "tasks": float(tasks[1]),
        "records": records,
        "store_mib_beside_history": beside / _MIB,
        "store_mib": data.stat().st_size / _MIB,
        "log_mib": log.stat().st_size / _MIB if log.exists() else 0.0,
    }


def _stored(data: Path) -> tuple[int, int]:
    """Return how many records there are besides the history, and how many bytes they take, indices too."""
    with sqlite3.connect(f"file:{data}?mode=ro", uri=True) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        count = sum(
            connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608  -- its own names
            for name in tables
            if name != _HISTORY
        )
        pages = connection.execute(
            "SELECT sum(pgsize) FROM dbstat WHERE name NOT IN"
            " (SELECT name FROM sqlite_schema WHERE tbl_name = ?)",
            (_HISTORY,),
        ).fetchone()[0]
    connection.close()
    return count, pages


def trend(name: str, at_s: list[float], values: list[float]) -> Trend:
    """Return what became of `values` at these times, once the warm-up is over."""
    begins = at_s[-1] * _WARM_UP
    kept = [(at, value) for at, value in zip(at_s, values, strict=True) if at >= begins]
    x, y = np.array([at for at, _ in kept]), np.array([value for _, value in kept])
    slope = float(np.polyfit(x, y, 1)[0]) if len(kept) > 2 else 0.0
    growth, mean = slope * float(x[-1] - x[0]), float(y.mean())
    growth_max = max(_PART_MAX * mean, _GROWTH_MAX[name])
    return Trend(
        mean=round(mean, 2),
        growth=round(growth, 2),
        growth_max=round(growth_max, 2),
        is_leak=growth > growth_max,
    )


def _series(samples: list[dict[str, float]]) -> dict[str, tuple[list[float], list[float]]]:
    at_s = [sample["at_s"] for sample in samples]
    return {name: (at_s, [sample[name] for sample in samples]) for name in _GROWTH_MAX}


def _plot(name: str, at_s: list[float], values: list[float]) -> str:
    figure: Any = plotille.Figure()
    figure.with_colors = False
    figure.width, figure.height = 60, 8
    figure.set_x_limits(0, max(at_s))
    figure.set_y_limits(0, max(values) * 1.2 or 1)
    figure.x_label, figure.y_label = "s", name
    figure.plot(at_s, values)
    return str(figure.show())


def _draw(path: Path, samples: list[dict[str, float]]) -> None:
    from matplotlib import pyplot  # noqa: PLC0415  -- it takes a second, and most runs draw nothing

    figure, axes = pyplot.subplots(len(_GROWTH_MAX), 1, sharex=True, figsize=(8, 12), layout="constrained")
    for axis, (name, (at_s, values)) in zip(axes, _series(samples).items(), strict=True):
        axis.plot([at / 60 for at in at_s], values, linewidth=1)
        axis.set_ylim(bottom=0)
        axis.set_ylabel(name, rotation=0, ha="right")
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=110)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--png", type=Path, help="where to draw what was seen")
    parser.add_argument(
        "--folder", type=Path, default=Path("var"), help="where the data file is (default: var)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
