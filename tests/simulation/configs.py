"""Configurations: what a seed's daemon is told at each of its starts."""

from pathlib import Path
from random import Random
from typing import Any

from coordd.config import Settings
from simulation.mix import between


def drawn(random: Random, path: Path) -> Settings:
    """Return any settings."""
    return Settings.model_validate(_tables(random) | {"store": {"path": str(path)}})


def _seconds(random: Random, low: float, high: float) -> str:
    return f"{round(between(random, low, high) * 1000)}ms"


def _tables(random: Random) -> dict[str, Any]:
    step_ms = round(between(random, 100, 60_000))
    return {
        "locks": {"exclusive": "item"},
        "kinds": {
            "analysis": {"lock_delay": random.choice(("0s", _seconds(random, 0.1, 20)))},
            "reply": {"lock_delay": _seconds(random, 0.1, 20), "min_interval": _seconds(random, 1, 100)},
            "like": {"lock_delay": "0s", "min_interval": random.choice(("0s", _seconds(random, 1, 50)))},
        },
        "waits": {"resume_grace": _seconds(random, 0.5, 60), "shed": random.random() < 0.7},
        "recovery": {"grace": _seconds(random, 0.1, 30)},
        "requests": {"memory": _seconds(random, 5, 600)},
        "aging": {"medium": f"{step_ms}ms", "high": f"{2 * step_ms}ms", "quality": f"{step_ms // 3}ms"},
        "escalation": {
            "timeout": _seconds(random, 1, 60),
            "default": random.choice(("wait", "grant", "deny", "preempt")),
            "preempt_grace": _seconds(random, 0.1, 10),
        },
    }
