"""What one seed draws: which faults there are, how often, and who is at work ("swarm testing").

Why a subset: where everything goes wrong all the time, few things ever get far enough to go wrong together.
Rules: everything here follows from the seed; a rate of 0 is a fault that this seed does without.
"""

import math
from dataclasses import dataclass
from random import Random
from typing import Final

from simulation.loop import SECOND

MILLISECOND: Final = 1_000_000


def between(random: Random, low: float, high: float) -> float:
    """Return a number of any order of magnitude between the two."""
    return math.exp(random.uniform(math.log(low), math.log(high)))


def perhaps(random: Random, chance: float, low: float, high: float) -> float:
    """Return 0, or with `chance` a number between the two."""
    return between(random, low, high) if random.random() < chance else 0.0


@dataclass(frozen=True)
class DiskMix:
    """Rates are by call, but for those by statement."""

    latency_ns: int
    stall_rate: float
    stall_ns_max: int
    power_cut_rate: float
    statements_before_failure: int
    pages_per_checkpoint: int

    @classmethod
    def drawn(cls, random: Random) -> "DiskMix":
        return cls(
            latency_ns=round(between(random, 0.02, 30) * MILLISECOND),
            stall_rate=perhaps(random, 0.3, 1e-4, 0.02),
            stall_ns_max=round(between(random, 0.1, 20) * SECOND),
            power_cut_rate=perhaps(random, 0.5, 3e-4, 0.02),
            statements_before_failure=round(perhaps(random, 0.3, 300, 30_000)),
            pages_per_checkpoint=round(between(random, 2, 1000)),
        )


@dataclass(frozen=True)
class WireMix:
    """Rates are by message."""

    latency_ns: int
    slow_rate: float
    slow_ns_max: int
    reset_rate: float
    vanish_rate: float
    window: int

    @classmethod
    def drawn(cls, random: Random) -> "WireMix":
        return cls(
            latency_ns=round(between(random, 0.05, 50) * MILLISECOND),
            slow_rate=perhaps(random, 0.3, 1e-3, 0.1),
            slow_ns_max=round(between(random, 0.1, 10) * SECOND),
            reset_rate=perhaps(random, 0.6, 1e-4, 0.03),
            vanish_rate=perhaps(random, 0.4, 1e-4, 0.01),
            window=random.choice((1, 2, 64)),
        )


@dataclass(frozen=True)
class HostMix:
    """`..._every_s`: the mean time between two of a sort; 0: never."""

    kill_every_s: float
    restart_every_s: float
    freeze_every_s: float
    freeze_s_max: float
    step_every_s: float
    step_s_max: float
    is_stepped_ahead: bool
    worker_crash_every_s: float
    down_s_max: float
    reconfigure_rate: float
    cost_ns: int
    lateness_ns_max: int

    @classmethod
    def drawn(cls, random: Random) -> "HostMix":
        return cls(
            kill_every_s=perhaps(random, 0.6, 3, 100),
            restart_every_s=perhaps(random, 0.4, 5, 200),
            freeze_every_s=perhaps(random, 0.3, 5, 200),
            freeze_s_max=between(random, 0.1, 60),
            step_every_s=perhaps(random, 0.4, 5, 100),
            step_s_max=between(random, 0.01, 3600),
            is_stepped_ahead=random.random() < 0.2,
            worker_crash_every_s=perhaps(random, 0.4, 2, 100),
            down_s_max=between(random, 0.02, 30),
            reconfigure_rate=random.choice((0.0, 0.0, 0.3, 1.0)),
            cost_ns=random.choice((0, 1_000, 20_000)),
            lateness_ns_max=random.choice((0, 100_000, 5 * MILLISECOND)),
        )


@dataclass(frozen=True)
class WorkMix:
    """Who is at work, by sort, and how."""

    workers: dict[str, int]
    think_s: float
    hold_s: float
    ttl_s: float
    items: int
    retry_rate: float
    hedge_rate: float
    forget_rate: float
    impatience_rate: float
    slow_reader_rate: float
    session_rate: float

    @classmethod
    def drawn(cls, random: Random, sorts: tuple[str, ...]) -> "WorkMix":
        chosen = [sort for sort in sorts if random.random() < 0.6] or [random.choice(sorts)]
        return cls(
            workers={sort: random.choice((1, 2, 3, 5, 8)) for sort in chosen},
            think_s=between(random, 0.02, 60),
            hold_s=between(random, 0.01, 10),
            ttl_s=between(random, 0.5, 60),
            items=random.choice((1, 2, 5, 50)),
            retry_rate=random.choice((0.5, 0.9, 1.0)),
            hedge_rate=perhaps(random, 0.3, 0.01, 0.3),
            forget_rate=perhaps(random, 0.5, 0.01, 0.2),
            impatience_rate=perhaps(random, 0.5, 0.01, 0.3),
            slow_reader_rate=perhaps(random, 0.2, 0.01, 0.5),
            session_rate=random.choice((0.0, 0.0, 0.5, 1.0)),
        )


@dataclass(frozen=True)
class UpstreamMix:
    """How often a call is answered 429, or 500."""

    refusal_rate: float
    failure_rate: float

    @classmethod
    def drawn(cls, random: Random) -> "UpstreamMix":
        return cls(refusal_rate=perhaps(random, 0.3, 0.01, 0.3), failure_rate=perhaps(random, 0.3, 0.01, 0.3))


@dataclass(frozen=True)
class Mix:
    """All that a seed draws before it begins."""

    duration_s: float
    calls_max: int
    disk: DiskMix
    wire: WireMix
    host: HostMix
    work: WorkMix
    upstream: UpstreamMix

    @classmethod
    def drawn(cls, random: Random, sorts: tuple[str, ...]) -> "Mix":
        return cls(
            duration_s=between(random, 20, 4000),
            calls_max=round(between(random, 100, 4000)),
            disk=DiskMix.drawn(random),
            wire=WireMix.drawn(random),
            host=HostMix.drawn(random),
            work=WorkMix.drawn(random, sorts),
            upstream=UpstreamMix.drawn(random),
        )
