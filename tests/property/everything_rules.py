"""Rules that switch everything on at once, small enough that everything collides. Different for each seed."""

from random import Random

from coordd.core.limits import SECOND
from coordd.core.records import Decision
from coordd.core.rules import (
    BORROW,
    CRITICAL,
    DENY,
    DENY_OVERFLOW,
    DYNAMIC,
    EQUAL,
    ESCALATE,
    HIGH,
    LOW,
    MEDIUM,
    PROPORTIONAL,
    QUEUE,
    WAIT,
    KindRule,
    LimitRule,
    PoolRule,
    Rules,
    TypeRule,
)

CONFLICTS = (WAIT, WAIT, DENY, ESCALATE)
# Of windows and of upstream's resets; whatever is charged has left so long after.
LONGEST = 60 * SECOND
RESET_MAX = 40 * SECOND


def everything(random: Random) -> Rules:
    """Return rules with everything in them; what can't be on together is drawn."""
    return Rules(
        kinds=_kinds(random),
        types={
            "db": TypeRule(ttl_ns=15 * SECOND, pool="conns", on_conflict=random.choice(CONFLICTS)),
            "gpu": TypeRule(
                ttl_ns=15 * SECOND, pool="gpus", escalate_after_ns=random.choice([0, 4 * SECOND])
            ),
            "file": TypeRule(
                ttl_ns=12 * SECOND, on_conflict=random.choice(CONFLICTS), escalate_after_ns=3 * SECOND
            ),
            "slot": TypeRule(ttl_ns=15 * SECOND, pool="slots"),
            "spare": TypeRule(ttl_ns=15 * SECOND, pool="spares"),
            "quota": TypeRule(ttl_ns=15 * SECOND, pools={"tweet": "tweets", "mail": "mails"}),
            "post": TypeRule(ttl_ns=15 * SECOND, pool="tweets"),
        },
        pools=_pools(random),
        limits=_limits(random),
        is_exclusive_by_kind=random.random() < 0.3,
        boost_ns={LOW: 0, MEDIUM: 10 * SECOND, HIGH: 20 * SECOND, CRITICAL: 1_000_000 * SECOND},
        quality_boost_ns=5 * SECOND,
        resume_grace_ns=7 * SECOND,
        recovery_grace_ns=9 * SECOND,
        request_memory_ns=25 * SECOND,
        schedule_horizon_ns=100 * SECOND,
        worker_weights={"w1": 2.0},
        worker_class_weights={"heavy": 3.0},
        active_window_ns=14 * SECOND,
        fair_bound_ns=11 * SECOND,
        bundle_patience_ns=6 * SECOND,
        is_shedding=random.random() < 0.5,
        engagement_memory_ns=60 * SECOND,
        escalation_timeout_ns=5 * SECOND,
        escalation_default=random.choice(list(Decision)),
        preempt_grace_ns=4 * SECOND,
        session_ttl_ns=10 * SECOND,
    )


def _kinds(random: Random) -> dict[str, KindRule]:
    return {
        "reply": KindRule(
            ttl_ns=20 * SECOND, lock_delay_ns=5 * SECOND, min_interval_ns=40 * SECOND, bypass_quality=1.0
        ),
        "like": KindRule(
            ttl_ns=10 * SECOND,
            lock_delay_ns=0,
            on_conflict=random.choice(CONFLICTS),
            escalate_after_ns=random.choice([0, 3 * SECOND]),
        ),
        "quote": KindRule(
            ttl_ns=10 * SECOND,
            lock_delay_ns=3 * SECOND,
            min_interval_ns=6 * SECOND,
            min_interval_after_ns={"like": 9 * SECOND, "reply": 25 * SECOND},
            quality_discount=0.75,
        ),
    }


def _pools(random: Random) -> dict[str, PoolRule]:
    shares = [EQUAL, PROPORTIONAL, DYNAMIC]
    headroom = random.choice([{}, {CRITICAL: 0.2, HIGH: 0.1}])
    return {
        "conns": PoolRule(
            capacity=4,
            capacity_min=1,
            capacity_max=6,
            latency_target_ns=5 * SECOND,
            decrease=0.7,
            recovery_ns=6 * SECOND,
            is_fair=random.random() < 0.5,
            share=random.choice(shares),
            headroom=random.choice([{}, {CRITICAL: 0.2}]),
        ),
        "gpus": PoolRule(capacity=2, overflow=BORROW, borrow_from="conns", is_fair=random.random() < 0.3),
        "slots": PoolRule(capacity=4, is_fair=True, share=random.choice(shares), headroom=headroom),
        "spares": PoolRule(
            capacity=1, overflow=random.choice([QUEUE, DENY_OVERFLOW, BORROW]), borrow_from="gpus"
        ),
        "tweets": PoolRule(
            limit=LimitRule(
                windows={10 * SECOND: 3, 60 * SECOND: 6},
                use_within_ns=4 * SECOND,
                is_fair=random.random() < 0.5,
                share=random.choice(shares),
                headroom=random.choice([{}, {HIGH: 0.2}]),
            )
        ),
        "mails": PoolRule(
            limit=LimitRule(windows={12 * SECOND: 4}, use_within_ns=3 * SECOND), overflow=DENY_OVERFLOW
        ),
    }


def _limits(random: Random) -> dict[str, LimitRule]:
    upstream = {"backoff_ns": SECOND, "backoff_max_ns": 8 * SECOND, "backoff_decay_ns": 4 * SECOND}
    return {
        "search": LimitRule(
            windows={10 * SECOND: 4, 30 * SECOND: 7},
            use_within_ns=3 * SECOND,
            claim_window_ns=6 * SECOND,
            is_fair=True,
            share=random.choice([EQUAL, PROPORTIONAL, DYNAMIC]),
            headroom=random.choice([{}, {CRITICAL: 0.25}]),
            forecast_max=random.choice([0.0, 0.5]),
            is_even=random.random() < 0.3,
            reset_max_ns=RESET_MAX,
            **upstream,
        ),
        "post": LimitRule(
            windows={8 * SECOND: 3, 40 * SECOND: 9},
            use_within_ns=SECOND,
            claim_window_ns=5 * SECOND,
            is_fair=random.random() < 0.5,
            share=PROPORTIONAL,
            forecast_max=random.choice([0.0, 0.0, 0.5]),
            is_even=random.random() < 0.5,
            header_window_ns=random.choice([0, 8 * SECOND]),
            reset_max_ns=RESET_MAX,
            alert_after=2,
            **upstream,
        ),
        "plain": LimitRule(
            windows={20 * SECOND: 5}, use_within_ns=2 * SECOND, reset_max_ns=RESET_MAX, **upstream
        ),
    }
