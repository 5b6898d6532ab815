"""Rules small enough that everything collides: short windows, few units, two items."""

from coordd.core.limits import SECOND
from coordd.core.rules import (
    CRITICAL,
    HIGH,
    LOW,
    MEDIUM,
    PROPORTIONAL,
    KindRule,
    LimitRule,
    PoolRule,
    Rules,
    TypeRule,
)


def rules_of(*, is_exclusive_by_kind: bool = False) -> Rules:
    """Return the rules of the property tests."""
    return Rules(
        kinds={
            "reply": KindRule(
                ttl_ns=20 * SECOND, lock_delay_ns=5 * SECOND, min_interval_ns=40 * SECOND, bypass_quality=1.0
            ),
            "like": KindRule(
                ttl_ns=10 * SECOND, lock_delay_ns=0, min_interval_after_ns={"reply": 7 * SECOND}
            ),
            # Halves and quarters: so that the model's fractions and the core's floats are the same numbers.
            "quote": KindRule(
                ttl_ns=10 * SECOND,
                lock_delay_ns=3 * SECOND,
                min_interval_ns=15 * SECOND,
                min_interval_after_ns={"like": 9 * SECOND, "reply": 25 * SECOND},
                quality_discount=0.75,
            ),
        },
        types={
            "db": TypeRule(ttl_ns=15 * SECOND, pool="conns"),
            "gpu": TypeRule(ttl_ns=15 * SECOND, pool="conns"),
            "file": TypeRule(ttl_ns=15 * SECOND),
            "quota": TypeRule(ttl_ns=15 * SECOND, pools={"tweet": "tweets"}),
            "post": TypeRule(ttl_ns=15 * SECOND, pool="tweets"),
            "slot": TypeRule(ttl_ns=15 * SECOND, pool="slots"),
        },
        pools={
            "conns": PoolRule(capacity=3),
            "slots": PoolRule(capacity=4, is_fair=True),
            "tweets": PoolRule(
                limit=LimitRule(windows={10 * SECOND: 3, 60 * SECOND: 6}, use_within_ns=4 * SECOND)
            ),
        },
        limits={
            "search": LimitRule(
                windows={10 * SECOND: 3, 30 * SECOND: 5},
                use_within_ns=3 * SECOND,
                claim_window_ns=6 * SECOND,
            ),
            "post": LimitRule(
                windows={8 * SECOND: 3, 40 * SECOND: 9},
                use_within_ns=SECOND,
                claim_window_ns=5 * SECOND,
                is_fair=True,
                share=PROPORTIONAL,
            ),
        },
        is_exclusive_by_kind=is_exclusive_by_kind,
        boost_ns={LOW: 0, MEDIUM: 10 * SECOND, HIGH: 20 * SECOND, CRITICAL: 1_000_000 * SECOND},
        quality_boost_ns=5 * SECOND,
        resume_grace_ns=7 * SECOND,
        recovery_grace_ns=9 * SECOND,
        request_memory_ns=25 * SECOND,
        schedule_horizon_ns=100 * SECOND,
        worker_weights={"w1": 2.0},
        active_window_ns=14 * SECOND,
        fair_bound_ns=11 * SECOND,
    )
