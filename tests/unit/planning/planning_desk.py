"""What the tests of planning share: rules, demands and runs in one line."""

from pathlib import Path

from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.rules import KindRule, LimitRule, PoolRule, Rules, TypeRule
from coordd.planning.demands import CLASSES, Demand, read_steps
from coordd.planning.log import Log
from coordd.planning.run import Plan, Simulation
from coordd.planning.trace import Trace, read_trace

ROOT = Path(__file__).parents[3]
RULES = Rules(
    kinds={"reply": KindRule(min_interval_ns=HOUR), "analysis": KindRule(ttl_ns=MINUTE)},
    types={
        "content": TypeRule(pool="pipeline"),
        "quota": TypeRule(pools={"tweet": "tweets"}),
        "file": TypeRule(),
    },
    pools={
        "pipeline": PoolRule(capacity=3),
        "tweets": PoolRule(limit=LimitRule(windows={100 * SECOND: 2}, use_within_ns=SECOND)),
    },
    limits={"post": LimitRule(windows={100 * SECOND: 3, 500 * SECOND: 9}, use_within_ns=SECOND)},
    worker_weights={"heavy": 2.0},
    worker_class_weights={"small": 0.5},
)
T0 = 1_600_000_000 * SECOND


def demand(
    what: str, *, at_s: float = 0, worker: str = "w1", priority: str = "medium", hold_ns: int | None = None
) -> Demand:
    return Demand(
        line=1,
        at_ns=T0 + round(at_s * SECOND),
        worker=worker,
        steps=read_steps(what),
        priority=CLASSES[priority],
        hold_ns=hold_ns,
    )


def plan(workers: int = 1, *, wait_s: int = 60, service_s: int = 1, at_once: int = 0, seed: int = 0) -> Plan:
    return Plan(
        workers=workers,
        wait_ns=wait_s * SECOND,
        service_ns=service_s * SECOND,
        at_once=at_once,
        seed=seed,
    )


def run(*demands: Demand, rules: Rules = RULES, how: Plan | None = None) -> Log:
    return Simulation(rules, demands, how or plan()).run()


def trace_of(tmp_path: Path, text: str) -> Trace:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    return read_trace(file, RULES)


def trace(*demands: Demand, is_dated: bool = True) -> Trace:
    return Trace(demands=demands, is_dated=is_dated, unordered=0)


def ends(log: Log) -> list[str]:
    """What became of each attempt: WORKER, or WORKER REASON WHAT."""
    return [" ".join([each.worker, each.reason, each.what]).strip() for each in log.attempts]
