"""Bundles in generated histories, judged by brute force: all or none, no deadlock, no starvation, no leak."""

from typing import Any

import pytest
from bundle_monkey import PATIENCE, RULES, TTL, BundleMonkey, run
from hypothesis import given, settings
from hypothesis import strategies as st

from coordd.core.commands import AcquireBundle, RequestLock, ReserveResource, TakePermit
from coordd.core.limits import MILLISECOND, SECOND
from coordd.core.outcomes import Queued

_MONKEYS = 40 if settings().max_examples < 1_000 else 2_000
_STREAMS = 25 if settings().max_examples < 1_000 else 1_000
_STEPS = 150


@pytest.mark.parametrize("seed", range(_MONKEYS))
def test_all_or_none_nobody_left_behind_nothing_set_aside_is_taken(seed: int) -> None:
    """And once holders release, everybody is served, and nothing is left of it all."""
    monkey = run(seed, _STEPS)
    assert monkey.replay() == monkey.machine.digest()
    monkey.wind_up()
    counts = monkey.machine.counts()
    assert (counts.locks, counts.reservations, counts.permits) == (0, 0, 0)
    assert (counts.bundles, counts.bookings, counts.waiters) == (0, 0, 0)
    machine = monkey.machine
    assert machine._ledger.members == {}
    assert machine._waits.earmarks.of == {}
    assert (machine._queues.units, machine._queues.aside) == ({}, {})
    assert all(pool.used == 0 for pool in machine.pools(monkey.now))


@pytest.mark.parametrize("seed", range(1_000_000, 1_000_000 + _MONKEYS))
def test_restarts_change_nothing_but_graces(seed: int) -> None:
    monkey = BundleMonkey(seed)
    for _ in range(4):
        for _ in range(_STEPS // 4):
            monkey.step()
        monkey.restart()
    monkey.wind_up()
    assert monkey.machine.counts().bundles == 0


def test_monkeys_do_take_bundles_and_do_wait_for_them() -> None:
    monkeys = [run(seed, _STEPS) for seed in range(10)]
    assert sum(monkey.granted for monkey in monkeys) > 50
    assert sum(monkey.waited for monkey in monkeys) > 50


_SMALL = st.tuples(
    st.sampled_from(["lock", "units", "search", "post", "pair"]),
    st.integers(1, 3),
    st.integers(50, 1_500),
    st.integers(0, 4_000),
)


@settings(max_examples=_STREAMS)
@given(st.lists(_SMALL, min_size=10, max_size=40))
def test_no_bundle_starves_beyond_its_patience_and_the_time_its_parts_take_to_free(
    stream: list[tuple[str, int, int, int]],
) -> None:
    """However smaller requests come, and however long each holds what it is lent."""
    monkey = BundleMonkey(0)
    monkey.ask(TakePermit(endpoint="search", count=3, worker="w1"))
    monkey.ask(RequestLock(item="a", kind="like", worker="w1"))
    asked_at, everything = monkey.now, _everything()
    outcome = monkey.ask(everything)
    assert isinstance(outcome, Queued)
    longest = max(
        length + rule.use_within_ns + length // 250
        for rule in RULES.limits.values()
        for length in rule.windows
    )
    deadline = asked_at + PATIENCE + max(TTL, longest)
    number = 0
    while outcome.id in monkey.judge.waiting:
        assert monkey.now <= deadline, "it starves"
        what, units, after_ms, hold_ms = stream[number % len(stream)]
        number += 1
        monkey.advance(min(monkey.now + after_ms * MILLISECOND + 1, deadline + 1))
        if outcome.id in monkey.judge.waiting:
            ttl_ns = 100 * MILLISECOND + hold_ms * MILLISECOND
            monkey.ask(_small(what, units, f"s{number}", ttl_ns))


def _everything() -> AcquireBundle:
    return AcquireBundle(
        worker="big",
        locks=tuple(RequestLock(item=item, kind="like", worker="big") for item in "ab"),
        reservations=(ReserveResource(type="db", units=3, worker="big"),),
        permits=(
            TakePermit(endpoint="search", count=3, worker="big"),
            TakePermit(endpoint="post", count=2, worker="big"),
        ),
        wait_ns=3_600 * SECOND,
    )


def _small(what: str, units: int, worker: str, ttl_ns: int) -> Any:
    more: dict[str, Any] = {"worker": worker, "wait_ns": 3_600 * SECOND if units > 1 else 0}
    lock = RequestLock(item="ab"[units % 2], kind="like", ttl_ns=ttl_ns, **more)
    if what == "lock":
        return lock
    if what == "units":
        return ReserveResource(type="db", units=units, ttl_ns=ttl_ns, **more)
    if what == "pair":
        permit = TakePermit(endpoint="post", worker=worker)
        return AcquireBundle(locks=(lock,), permits=(permit,), **more)
    return TakePermit(endpoint=what, count=min(units, 2), **more)
