"""Adaptive pools and overflow against a naive judge; adaptation against a resource of hidden capacity.

The judge keeps a list of what is held and does the sums with fractions, from what the workers say alone. It
says after every step what the capacity is, that no more is held than there was at the grant, that no lender
lends more than it has, and who must not be waiting any longer. At the end the journal is replayed, and the
machine recovered from its rows, each time with the same result.
"""

import heapq
import random
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coordd.core.commands import ReleaseResource, ReserveResource, UpdatePool
from coordd.core.errors import CommandError
from coordd.core.limits import MILLISECOND, SECOND
from coordd.core.machine import Machine
from coordd.core.outcomes import Granted, WaitGranted, WaitRefused
from coordd.core.records import KEY_COLUMNS, Reservation, Row, Table
from coordd.core.rules import PoolRule, Rules, TypeRule

T0 = 1_790_000_000 * SECOND
ADAPTIVE = PoolRule(
    capacity=6,
    capacity_min=2,
    capacity_max=9,
    latency_target_ns=SECOND,
    decrease=0.7,
    recovery_ns=10 * SECOND,
)
RULES = Rules(
    kinds={},
    types={
        name: TypeRule(ttl_ns=40 * SECOND, pool=name) for name in ("adaptive", "lender", "short", "strict")
    },
    pools={
        "adaptive": ADAPTIVE,
        "lender": PoolRule(capacity=4),
        "short": PoolRule(capacity=2, overflow="borrow", borrow_from="lender"),
        "strict": PoolRule(capacity=2, overflow="deny"),
    },
    limits={},
    recovery_grace_ns=SECOND,
    resume_grace_ns=5 * SECOND,
)
POOLS = ("adaptive", "lender", "short", "strict")


@dataclass
class Held:
    """What the judge knows of one reservation."""

    pool: str
    units: int
    granted_at: int


class Judge:
    """The adaptive pool's capacity in thousandths, from what was said alone."""

    def __init__(self) -> None:
        self.milli = Fraction(6_000)
        self.pinned: int | None = None
        self.decreased_at = 0
        self.recovering_since = 0
        self.held: dict[int, Held] = {}

    def used(self, pool: str) -> int:
        return sum(held.units for held in self.held.values() if held.pool == pool)

    def capacity(self, pool: str) -> int:
        if pool != "adaptive":
            return RULES.pools[pool].capacity
        return floor(self.milli / 1_000) if self.pinned is None else self.pinned

    def units_max(self, pool: str) -> int:
        return 9 if pool == "adaptive" and self.pinned is None else self.capacity(pool)

    def pass_time(self, now: int) -> None:
        while self.pinned is None and self.milli < 6_000 and self.recovering_since + 10 * SECOND <= now:
            self.recovering_since += 10 * SECOND
            self.milli = min(Fraction(6_000), self.milli + 1_000)

    def learn(self, held: Held, result: int, latency_ns: int, now: int) -> None:
        if held.pool != "adaptive" or self.pinned is not None or held.granted_at < self.decreased_at:
            return
        if result == 2 or latency_ns > SECOND:
            less = min(floor(self.milli * Fraction(7, 10)), self.milli - 1_000)
            self.milli = Fraction(max(2_000, less))
            self.decreased_at = self.recovering_since = now
        elif result == 1 and 2 * self.used("adaptive") >= self.capacity("adaptive"):
            gained = ceil(Fraction(held.units * 1_000_000) / self.milli)
            self.milli = min(Fraction(9_000), self.milli + gained)


class CapacityMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now = T0
        self.asked = 0
        self.machine = Machine(RULES)
        self.machine.recover({}, 0, T0)
        self.judge = Judge()
        self.waiting: dict[int, ReserveResource] = {}
        self.rows: dict[Table, dict[tuple[Any, ...], Row]] = {table: {} for table in Table}
        # What the machine was told since it was last recovered, and from what.
        self.journal: list[tuple[Any, int]] = []
        self.recovered: tuple[Any, ...] = ({}, 0, T0)

    # -- what happens ----------------------------------------------------------------------------------------

    @rule(
        pool=st.sampled_from(POOLS),
        units=st.integers(1, 10),
        waits=st.booleans(),
        request=st.sampled_from(["", "", "r1", "r2"]),
        priority=st.sampled_from([2, 2, 2, 4]),
    )
    def ask(self, *, pool: str, units: int, waits: bool, request: str, priority: int) -> None:
        self.asked += 1
        units = units if pool == "adaptive" else (units - 1) % RULES.pools[pool].capacity + 1
        command = ReserveResource(
            type=pool,
            worker=f"w{self.asked}",
            units=units,
            request_id=request,
            wait_ns=30 * SECOND if waits else 0,
            priority=priority,
        )
        outcome = self.apply(command)
        if outcome is None:
            assert units > self.judge.units_max(pool)
        elif isinstance(outcome, Granted):
            self.granted(outcome.grant)
        elif hasattr(outcome, "id"):
            assert waits
            assert pool != "strict"
            self.waiting[outcome.id] = command

    @rule(
        index=st.integers(0, 50),
        result=st.sampled_from([0, 1, 1, 1, 2]),
        latency_ns=st.sampled_from([0, 0, SECOND, SECOND + 1]),
    )
    def release(self, *, index: int, result: int, latency_ns: int) -> None:
        if self.judge.held:
            key = sorted(self.judge.held)[index % len(self.judge.held)]
            live = self.machine.reservations([key])[0]
            self.judge.learn(self.judge.held[key], result, latency_ns, self.now)
            del self.judge.held[key]
            self.apply(ReleaseResource(id=key, worker=live.worker, result=result, latency_ns=latency_ns))

    @rule(tenths=st.sampled_from([1, 5, 20, 100, 350]))
    def pass_time(self, *, tenths: int) -> None:
        until = self.now + tenths * 100 * MILLISECOND
        while (due_at := self.machine.next_deadline()) is not None and due_at <= until:
            self.now = max(self.now, due_at)
            self.judge.pass_time(self.now)
            self.tick()
        self.now = until
        self.judge.pass_time(until)
        self.tick()

    @rule(capacity=st.sampled_from([1, 4, 6, 12]))
    def pin(self, *, capacity: int) -> None:
        self.judge.pinned = capacity
        self.apply(UpdatePool(name="adaptive", capacity=capacity))

    @rule()
    def unpin(self) -> None:
        judge = self.judge
        if judge.pinned is not None:
            judge.milli = Fraction(min(9_000, max(2_000, judge.pinned * 1_000)))
            judge.pinned, judge.decreased_at, judge.recovering_since = None, 0, self.now
        self.apply(UpdatePool(name="adaptive", is_unpinned=True))

    @rule()
    def restart(self) -> None:
        self.commit()
        before = self.machine.snapshot()[Table.CAPACITIES]
        self.recovered = self.stored()
        self.machine = Machine(RULES)
        self.machine.recover(*self.recovered)
        assert self.machine.snapshot()[Table.CAPACITIES] == before
        self.journal = []
        # Those that can come back are away, and nobody will.
        self.waiting = {}

    # -- what must hold --------------------------------------------------------------------------------------

    @invariant()
    def the_capacity_is_what_the_judge_says(self) -> None:
        for pool in POOLS:
            view = self.machine.pool(pool, self.now)
            assert (view.capacity, view.used) == (self.judge.capacity(pool), self.judge.used(pool)), pool
        if self.judge.pinned is None:
            assert 2_000 <= self.judge.milli <= 9_000
            for _, capacity_milli, _, _ in self.machine.snapshot()[Table.CAPACITIES]:
                assert capacity_milli == self.judge.milli

    @invariant()
    def nobody_waits_who_could_be_served(self) -> None:
        """Whoever is first by rank of those whose units there are in all."""
        for pool in POOLS:
            capacity = self.judge.capacity(pool)
            queue = [id_ for id_, command in self.waiting.items() if command.type == pool]
            in_reach = sorted(
                (self.waiting[id_].priority != 4, id_) for id_ in queue if self.waiting[id_].units <= capacity
            )
            if in_reach:
                units = self.waiting[in_reach[0][1]].units
                assert units > capacity - self.judge.used(pool)
                if pool == "short" and not any(each.type == "lender" for each in self.waiting.values()):
                    assert units > 4 - self.judge.used("lender")
            assert all(self.waiting[id_].units <= self.judge.units_max(pool) for id_ in queue)

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        replayed = Machine(RULES)
        replayed.recover(*self.recovered)
        for command, at in self.journal:
            replayed.tick(at)
            if command is not None:
                try:
                    replayed.apply(command, at)
                except CommandError:
                    continue
        assert replayed.digest() == self.machine.digest()
        self.commit()
        recovered = Machine(RULES)
        recovered.recover(*self.stored())
        assert recovered.snapshot()[Table.CAPACITIES] == self.machine.snapshot()[Table.CAPACITIES]
        assert [view.used for view in recovered.pools(self.now)] == [
            view.used for view in self.machine.pools(self.now)
        ]

    # --------------------------------------------------------------------------------------------------------

    def apply(self, command: Any) -> Any:
        self.tick()
        self.journal.append((command, self.now))
        before = self.machine.digest()
        try:
            outcome = self.machine.apply(command, self.now)
        except CommandError:
            assert self.machine.digest() == before
            return None
        self.take_notices()
        return outcome

    def tick(self) -> None:
        self.journal.append((None, self.now))
        self.machine.tick(self.now)
        self.take_notices()

    def take_notices(self) -> None:
        for notice in self.machine.take_notices():
            if isinstance(notice, WaitGranted):
                self.waiting.pop(notice.waiter.id, None)
                self.granted(notice.grant)
            elif isinstance(notice, WaitRefused):
                self.waiting.pop(notice.waiter.id, None)
            elif hasattr(notice, "grant"):
                self.judge.held.pop(notice.grant.id, None)

    def granted(self, grant: Any) -> None:
        assert isinstance(grant, Reservation)
        if grant.id not in self.judge.held:
            if grant.pool != grant.type:
                assert (grant.type, grant.pool) == ("short", "lender")
                assert grant.units > 2 - self.judge.used("short"), "it had units of its own"
                wanted = [command.type for command in self.waiting.values()]
                assert "lender" not in wanted, "they were waited for"
            self.judge.held[grant.id] = Held(grant.pool, grant.units, self.now)
            assert self.judge.used(grant.pool) <= self.judge.capacity(grant.pool), "more than there is"

    def commit(self) -> None:
        puts, deletes = self.machine.take_changes()
        for table, rows in puts.items():
            self.rows[table].update({row[: KEY_COLUMNS[table]]: row for row in rows})
        for table, keys in deletes.items():
            for key in keys:
                self.rows[table].pop(key, None)

    def stored(self) -> tuple[Any, ...]:
        tables = {table: [rows[key] for key in sorted(rows)] for table, rows in self.rows.items()}
        return tables, self.machine.last_id, self.now


TestCapacity = CapacityMachine.TestCase


# -- adaptation ----------------------------------------------------------------------------------------------


class Resource:
    """A fleet that always wants more, and a resource that can do `true` things at once and says so late.

    Each piece of work lasts 50 to 150 ms; it is overloaded if, when it begins, more are under way than that.
    """

    def __init__(self, true: int, *, capacity: int, capacity_max: int, seed: int) -> None:
        rules = Rules(
            kinds={},
            types={"db": TypeRule(pool="conns")},
            pools={
                "conns": PoolRule(
                    capacity=capacity, capacity_min=1, capacity_max=capacity_max, recovery_ns=5 * SECOND
                )
            },
            limits={},
        )
        self.true = true
        self.random = random.Random(seed)
        self.machine = Machine(rules)
        self.machine.recover({}, 0, T0)
        self.now = T0
        self.under_way: list[tuple[int, int, int]] = []
        self.capacities: list[tuple[int, int]] = []
        self.overloads = self.done = 0

    def capacity(self) -> int:
        return self.machine.pool("conns", self.now).capacity

    def run(self, length_ns: int) -> None:
        """Let the whole fleet work."""
        until = self.now + length_ns
        while self.now < until:
            while isinstance(
                outcome := self.machine.apply(ReserveResource(type="db", worker="w"), self.now), Granted
            ):
                result = 2 if len(self.under_way) >= self.true else 1
                ends = self.now + self.random.randrange(50, 150) * MILLISECOND
                heapq.heappush(self.under_way, (ends, outcome.grant.id, result))
            self.now, id_, result = heapq.heappop(self.under_way)
            self.machine.tick(self.now)
            self.done += 1
            self.overloads += result == 2
            self.machine.apply(ReleaseResource(id=id_, worker="w", result=result), self.now)
            self.capacities.append((self.now, self.capacity()))

    def mean_since(self, since: int) -> float:
        """Return the mean capacity, weighted by time."""
        of_late = [each for each in self.capacities if each[0] >= since]
        spans = pairwise(of_late)
        return sum(capacity * (after - at) for (at, capacity), (after, _) in spans) / (
            of_late[-1][0] - of_late[0][0]
        )


@pytest.mark.parametrize("true", [4, 10, 25, 60])
@pytest.mark.parametrize("configured", [5, 80])
def test_the_capacity_finds_what_the_resource_can_do(true: int, configured: int) -> None:
    resource = Resource(true, capacity=configured, capacity_max=100, seed=true * configured)
    resource.run(30 * SECOND)
    settled = resource.now
    resource.overloads = resource.done = 0
    resource.run(60 * SECOND)
    # A saw: a unit more each round until one is too many, then a tenth, or a unit, less.
    assert abs(resource.mean_since(settled) - true) <= 0.1 * true
    assert resource.overloads <= 0.4 * resource.done


@pytest.mark.parametrize("seed", range(5))
def test_it_follows_a_resource_that_changes(seed: int) -> None:
    resource = Resource(40, capacity=40, capacity_max=100, seed=seed)
    resource.run(20 * SECOND)
    resource.true = 10
    resource.run(20 * SECOND)
    settled = resource.now
    resource.run(20 * SECOND)
    assert 7 <= resource.mean_since(settled) <= 11
    resource.true = 70
    resource.run(30 * SECOND)
    settled = resource.now
    resource.run(20 * SECOND)
    assert 58 <= resource.mean_since(settled) <= 71


@pytest.mark.parametrize("seed", range(5))
def test_what_was_lost_to_failures_comes_back_though_nobody_works(seed: int) -> None:
    resource = Resource(0, capacity=12, capacity_max=20, seed=seed)
    resource.run(20 * SECOND)
    lost = 12 - resource.capacity()
    assert resource.capacity() <= 3
    for id_ in [each[1] for each in resource.under_way]:
        resource.machine.apply(ReleaseResource(id=id_, worker="w"), resource.now)
    until = resource.now + (lost + 1) * 5 * SECOND
    while (due_at := resource.machine.next_deadline()) is not None and due_at <= until:
        resource.machine.tick(due_at)
    assert resource.machine.pool("conns", until).capacity == 12
