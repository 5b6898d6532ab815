"""Configurations: what a seed's daemon is told at each of its starts."""

from pathlib import Path
from random import Random
from typing import Any, Final

from coordd.config import Settings
from simulation.mix import between


class Configs:
    """The configuration of each start: as before, or at `change_rate` another."""

    def __init__(self, random: Random, path: Path, change_rate: float) -> None:
        self._random = random
        self._path = path
        self._change_rate = change_rate
        # Not changed: of two that hold one item since no judge could tell who may.
        self._exclusive = random.choice(("item", "item", "item_and_kind"))
        self._settings = self._drawn()

    def next(self) -> Settings:
        """Return that of the next start."""
        if self._random.random() < self._change_rate:
            self._settings = self._drawn()
        return self._settings

    def _drawn(self) -> Settings:
        return Settings.model_validate(
            _tables(self._random)
            | {"store": {"path": str(self._path)}, "locks": {"exclusive": self._exclusive}}
        )


def _seconds(random: Random, low: float, high: float) -> str:
    return f"{round(between(random, low, high) * 1000)}ms"


def _tables(random: Random) -> dict[str, Any]:
    step_ms = round(between(random, 100, 60_000))
    return {
        "kinds": _kinds(random),
        "pools": _pools(random),
        "types": _TYPES,
        "limits": _limits(random),
        "waits": {
            "resume_grace": _seconds(random, 0.5, 60),
            "shed": random.random() < 0.7,
            "bundle_patience": _seconds(random, 0.1, 20),
        },
        "recovery": {"grace": _seconds(random, 0.1, 30)},
        "requests": {"memory": _seconds(random, 5, 600)},
        "aging": {
            "medium": f"{step_ms}ms",
            "high": f"{2 * step_ms}ms",
            "quality": f"{step_ms // 3}ms",
            "fair_bound": _seconds(random, 1, 60),
        },
        "escalation": {
            "timeout": _seconds(random, 1, 60),
            "default": random.choice(("wait", "grant", "deny", "preempt")),
            "preempt_grace": _seconds(random, 0.1, 10),
        },
        "sessions": {"ttl": _seconds(random, 1, 60)},
        "sharing": {"active_window": _seconds(random, 1, 100)},
        "server": {"drain_timeout": _seconds(random, 0.1, 10)},
    }


# As fleet and its like know them.
_TYPES: Final = {
    "slot": {"pool": "small"},
    "room": {"pool": "small"},
    "desk": {},
    "burst": {"pool": "burst"},
    "spare": {"pool": "spare"},
}
# The length that an operator sets limits of, too.
WINDOW_S: Final = 5


def _kinds(random: Random) -> dict[str, Any]:
    return {
        "analysis": {
            "lock_delay": random.choice(("0s", _seconds(random, 0.1, 20))),
            "escalate_after": random.choice(("0s", _seconds(random, 0.1, 10))),
        },
        "reply": {
            "lock_delay": _seconds(random, 0.1, 20),
            "min_interval": _seconds(random, 1, 100),
            "quality_discount": random.choice((0, 0.5)),
        },
        "like": {
            "lock_delay": "0s",
            "min_interval": random.choice(("0s", _seconds(random, 1, 50))),
            "min_interval_after": random.choice(({}, {"reply": _seconds(random, 1, 20)})),
        },
    }


def _pools(random: Random) -> dict[str, Any]:
    capacity = random.randint(3, 6)
    adaptive = {"capacity_min": random.randint(1, 3), "capacity_max": capacity + random.randint(0, 3)}
    borrowing = {"overflow": "borrow", "borrow_from": "small"}
    return {
        "small": {"capacity": capacity} | random.choice((adaptive, _fair(random), {})),
        "spare": {"capacity": 3} | random.choice((borrowing, {"overflow": "deny"}, {})),
        "burst": {
            "windows": {f"{WINDOW_S}s": random.randint(3, 10)},
            "use_within": _seconds(random, 0.2, 10),
        },
    }


def _limits(random: Random) -> dict[str, Any]:
    brief = random.randint(3, 12)
    post = {"windows": {f"{WINDOW_S}s": brief, "1m": random.randint(brief, 60 // WINDOW_S * brief)}}
    search = {"windows": {random.choice(("1s", "20s", "15m")): random.randint(3, 40)}}
    return {"post": post | _pace(random), "search": search | _pace(random)}


def _pace(random: Random) -> dict[str, Any]:
    return {
        "use_within": _seconds(random, 0.2, 10),
        "claim_window": _seconds(random, 0.2, 10),
        "backoff": _seconds(random, 0.1, 2),
        "backoff_max": _seconds(random, 2, 60),
        "forecast_headroom": random.choice((0, 0.5)),
        "pace": random.choice(("asap", "asap", "even")),
    } | random.choice(({}, _fair(random), {"headroom": {"critical": 0.1}}))


def _fair(random: Random) -> dict[str, Any]:
    return {"allocation": "fair", "share": random.choice(("equal", "proportional", "dynamic"))}
