"""What is reported: figures with their targets, and the machine they were measured on."""

import os
import platform
import sqlite3
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

_PACKAGES: Final = ("coordd", "grpcio", "protobuf", "msgspec", "aiosqlite", "sortedcontainers")


class Figure(Struct, kw_only=True, omit_defaults=True):
    """One figure: the median of its `runs`. `at_least` or `at_most` is its target, if it has one."""

    unit: str
    value: float
    runs: list[float]
    at_least: float | None = None
    at_most: float | None = None
    passed: bool | None = None


def figure(
    runs: Sequence[float], unit: str, *, at_least: float | None = None, at_most: float | None = None
) -> Figure:
    """Return the figure that these runs make, judged by its target if there is one."""
    value = _rounded(statistics.median(runs))
    passed = None
    if at_least is not None or at_most is not None:
        passed = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    return Figure(
        unit=unit,
        value=value,
        runs=[_rounded(run) for run in runs],
        at_least=at_least,
        at_most=at_most,
        passed=passed,
    )


def _rounded(value: float) -> float:
    """Three or four digits: more would be noise."""
    return round(value) if value >= 1_000 else float(f"{value:.3g}")


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "os": platform.platform(terse=True),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
