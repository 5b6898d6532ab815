"""Conflicts under any commands at any instants: nobody is hurt, and every escalation closes.

The judge is told commands, outcomes and notices only. It knows who may hold what, which tokens are dead,
which escalations are open and until when; it shares no line with the core.
"""

from copy import deepcopy
from random import Random
from typing import Any

import pytest
from hypothesis import settings

from coordd.core.commands import (
    LeaveWait,
    ReleaseLock,
    ReleaseResource,
    RenewLock,
    RenewReservation,
    RequestLock,
    ReserveResource,
    ResolveEscalation,
)
from coordd.core.errors import CommandError
from coordd.core.limits import SECOND
from coordd.core.machine import Command, Machine
from coordd.core.outcomes import (
    EscalationChanged,
    Expired,
    Granted,
    LockReleased,
    Preempted,
    Queued,
    ResourceReleased,
    WaitGranted,
    WaitRefused,
    grant_id,
)
from coordd.core.records import KEY_COLUMNS, Decision, EndedBy, Lock, Row, Table
from coordd.core.rules import DENY, ESCALATE, PRIORITIES, WAIT, KindRule, PoolRule, Rules, TypeRule

T0 = 1_790_000_000 * SECOND
TIMEOUT, GRACE = 6 * SECOND, 3 * SECOND
SEEDS = 40 if settings().max_examples < 1_000 else 1_500
STEPS = 150


def rules_of(default: int) -> Rules:
    return Rules(
        kinds={
            "like": KindRule(ttl_ns=10 * SECOND, lock_delay_ns=2 * SECOND),
            "slow": KindRule(ttl_ns=8 * SECOND, lock_delay_ns=0, escalate_after_ns=4 * SECOND),
            "ask": KindRule(ttl_ns=20 * SECOND, on_conflict=ESCALATE, min_interval_ns=5 * SECOND),
            "deny": KindRule(ttl_ns=5 * SECOND, on_conflict=DENY),
        },
        types={
            "file": TypeRule(ttl_ns=12 * SECOND, escalate_after_ns=3 * SECOND),
            "db": TypeRule(ttl_ns=6 * SECOND, pool="conns", on_conflict=ESCALATE),
        },
        pools={"conns": PoolRule(capacity=2)},
        limits={},
        resume_grace_ns=5 * SECOND,
        recovery_grace_ns=4 * SECOND,
        request_memory_ns=10 * SECOND,
        escalation_timeout_ns=TIMEOUT,
        escalation_default=default,
        preempt_grace_ns=GRACE,
    )


class Judge:
    """What must hold, told of what happens."""

    def __init__(self) -> None:
        self.holders: dict[tuple[str, str], int] = {}
        self.leases: dict[int, Any] = {}
        self.told_until: dict[int, int] = {}
        self.dead: dict[int, Any] = {}
        self.open: dict[int, tuple[int, int]] = {}
        self.waiting: set[int] = set()
        self.last_token = 0

    def begin(self, grant: Any) -> None:
        assert grant_id(grant) > self.last_token, "tokens must rise"
        self.last_token = grant_id(grant)
        key = _exclusive(grant)
        if key is not None:
            assert key not in self.holders, f"two holders of {key}"
            self.holders[key] = grant_id(grant)
        self.leases[grant_id(grant)] = grant

    def end(self, grant: Any) -> None:
        key = _exclusive(grant)
        if key is not None:
            assert self.holders.pop(key) == grant_id(grant)
        del self.leases[grant_id(grant)]
        self.told_until.pop(grant_id(grant), None)

    def notice(self, notice: Any, now: int) -> None:
        if isinstance(notice, WaitGranted):
            self.waiting.remove(notice.waiter.id)
            self.begin(notice.grant)
        elif isinstance(notice, WaitRefused):
            self.waiting.discard(notice.waiter.id)
        elif isinstance(notice, Expired):
            self.end(notice.grant)
        elif isinstance(notice, Preempted):
            self._preempted(notice, now)
        elif isinstance(notice, EscalationChanged):
            self._escalated(notice, now)

    def _preempted(self, notice: Preempted, now: int) -> None:
        of_id = grant_id(notice.grant)
        if of_id in self.told_until:
            assert notice.at == now == self.told_until[of_id], "taken at another time than told"
            self.dead[of_id] = notice.grant
            self.end(notice.grant)
        else:
            assert now < notice.at <= now + GRACE, "told too late"
            self.told_until[of_id] = notice.at

    def _escalated(self, notice: EscalationChanged, now: int) -> None:
        escalation = notice.escalation
        if notice.is_open:
            assert escalation.waiter_id not in {waiter for waiter, _ in self.open.values()}
            self.open[escalation.id] = (escalation.waiter_id, escalation.decide_by)
            return
        _, decide_by = self.open.pop(escalation.id)
        if escalation.decided_by == "default":
            assert now == decide_by, "the default holds at another time than told"
        else:
            assert now <= decide_by


def _exclusive(grant: Any) -> tuple[str, str] | None:
    if isinstance(grant, Lock):
        return ("item", grant.item)
    return (grant.type, grant.resource_id) if grant.resource_id else None


class World:
    """One machine, driven at random, under the judge's eyes."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.default = self.random.choice(list(Decision))
        self.now = T0
        self.judge = Judge()
        self.machine = self._fresh()
        self.rows: dict[Table, dict[tuple[Any, ...], Row]] = {table: {} for table in Table}
        self.journal: list[tuple[int, Command | None]] = []

    def _fresh(self) -> Machine:
        machine = Machine(rules_of(self.default))
        machine.recover({}, 0, T0)
        return machine

    def step(self) -> None:
        actions = [self.want, self.want, self.renew, self.release, self.decide, self.leave, self.wait]
        self.random.choice([*actions, self.use_the_dead])()
        judge = self.judge
        assert set(judge.open) == {each.id for each in self.machine.escalations()}
        assert len(judge.open) == self.machine.counts().escalations
        assert {waiter for waiter, _ in judge.open.values()} <= judge.waiting
        assert all(decide_by > self.now for _, decide_by in judge.open.values())
        assert all(until > self.now for until in judge.told_until.values())
        for of_id, until in judge.told_until.items():
            assert judge.leases[of_id].expires_at <= until, "renewed beyond its preemption"

    def do(self, command: Command) -> Any:
        self.journal.append((self.now, deepcopy(command)))
        before = self.machine.digest()
        try:
            outcome = self.machine.apply(command, self.now)
        except CommandError as error:
            assert self.machine.digest() == before
            return error
        self._note(outcome)
        self._take_notices()
        self.advance(self.now)
        return outcome

    def _note(self, outcome: Any) -> None:
        judge = self.judge
        if isinstance(outcome, Granted) and not outcome.is_repeat:
            if outcome.waiter is not None:
                judge.waiting.remove(outcome.waiter.id)
            judge.begin(outcome.grant)
        elif isinstance(outcome, Queued):
            judge.waiting.add(outcome.id)
        elif isinstance(outcome, LockReleased) and not outcome.is_repeat:
            judge.end(judge.leases[outcome.engagement.token])
        elif isinstance(outcome, ResourceReleased) and outcome.reservation is not None:
            judge.end(outcome.reservation)

    def _take_notices(self) -> None:
        for notice in self.machine.take_notices():
            self.judge.notice(notice, self.now)

    def advance(self, to: int) -> None:
        while (due_at := self.machine.next_deadline()) is not None and due_at <= to:
            self.now = max(self.now, due_at)
            self.machine.tick(self.now)
            self.journal.append((self.now, None))
            self._take_notices()
        self.now = to
        self.machine.tick(to)
        self.journal.append((to, None))

    # -- what may happen -------------------------------------------------------------------------------------

    def wait(self) -> None:
        self.advance(self.now + self.random.choice([1, SECOND // 2, SECOND, 3 * SECOND, 7 * SECOND]))

    def want(self) -> None:
        random = self.random
        common: dict[str, Any] = {
            "worker": random.choice(["w1", "w2", "w3"]),
            "priority": random.choice(PRIORITIES),
            "request_id": random.choice(["", "r1", "r2"]),
            "wait_ns": random.choice([0, 5 * SECOND, 60 * SECOND, 60 * SECOND]),
            "on_conflict": random.choice([0, 0, WAIT, DENY, ESCALATE, ESCALATE]),
        }
        if random.random() < 0.6:
            kind = random.choice(["like", "slow", "ask", "deny"])
            command: Any = RequestLock(item=random.choice("ab"), kind=kind, **common)
        else:
            type_, resource_id = random.choice([("file", "x"), ("db", ""), ("db", "y")])
            command = ReserveResource(type=type_, resource_id=resource_id, **common)
        outcome = self.do(command)
        is_denied = command.on_conflict == DENY and not isinstance(outcome, Granted | CommandError)
        if is_denied and isinstance(outcome, Queued):
            assert outcome.is_resumed, "one that was to be denied waits"

    def _lease(self) -> Any:
        leases = list(self.judge.leases.values())
        return self.random.choice(leases) if leases else None

    def renew(self) -> None:
        lease = self._lease()
        if isinstance(lease, Lock):
            ttl_ns = self.random.choice([0, SECOND, 30 * SECOND])
            self.do(RenewLock(item=lease.item, worker=lease.worker, token=lease.token, ttl_ns=ttl_ns))
        elif lease is not None:
            self.do(RenewReservation(id=lease.id, worker=lease.worker))

    def release(self) -> None:
        lease = self._lease()
        if isinstance(lease, Lock):
            outcome = self.random.choice([1, 2, 3])
            self.do(ReleaseLock(item=lease.item, worker=lease.worker, token=lease.token, outcome=outcome))
        elif lease is not None:
            self.do(ReleaseResource(id=lease.id, worker=lease.worker))

    def decide(self) -> None:
        if self.judge.open:
            of_id = self.random.choice(sorted(self.judge.open))
            decision = self.random.choice(list(Decision))
            waiter = self.judge.open[of_id][0]
            outcome = self.do(ResolveEscalation(id=of_id, decision=decision, decided_by="boss"))
            if isinstance(outcome, CommandError):
                assert (decision, outcome.reason) == (Decision.PREEMPT, "NOT_PREEMPTIBLE")
            else:
                assert of_id not in self.judge.open
                assert decision != Decision.DENY or waiter not in self.judge.waiting
                again = self.do(ResolveEscalation(id=of_id, decision=decision, decided_by="boss"))
                assert again.reason == "ESCALATION_CLOSED"

    def leave(self) -> None:
        if self.judge.waiting:
            of_id = self.random.choice(sorted(self.judge.waiting))
            outcome = self.do(LeaveWait(id=of_id))
            if not outcome.is_away:
                self.judge.waiting.discard(of_id)

    def use_the_dead(self) -> None:
        for of_id, lease in list(self.judge.dead.items())[-2:]:
            if isinstance(lease, Lock):
                release = ReleaseLock(item=lease.item, worker=lease.worker, token=of_id, outcome=1)
                for command in (release, RenewLock(item=lease.item, worker=lease.worker, token=of_id)):
                    assert self.do(command).reason == "LEASE_LOST", "a preempted token works again"
            else:
                assert self.do(RenewReservation(id=of_id, worker=lease.worker)).reason == "LEASE_LOST"

    # -- replay and restart ----------------------------------------------------------------------------------

    def replay(self) -> Machine:
        machine = self._fresh()
        for now, command in self.journal:
            if command is None:
                machine.tick(now)
                continue
            try:
                machine.apply(deepcopy(command), now)
            except CommandError:
                continue
            finally:
                machine.take_notices()
        return machine

    def restart(self, down_ns: int) -> None:
        puts, deletes = self.machine.take_changes()
        for table, rows in puts.items():
            self.rows[table].update({row[: KEY_COLUMNS[table]]: row for row in rows})
        for table, keys in deletes.items():
            for key in keys:
                self.rows[table].pop(key, None)
        snapshot = self.machine.snapshot()
        for table in (Table.ESCALATIONS, Table.WAITERS):
            stored = [self.rows[table][key] for key in sorted(self.rows[table])]
            assert sorted(snapshot[table]) == stored, table
        self.now += down_ns
        tables = {table: [rows[key] for key in sorted(rows)] for table, rows in self.rows.items()}
        tables[Table.ENGAGEMENTS].sort(key=lambda row: (row[5], row[0]))
        last_id = self.machine.last_id
        self.machine = Machine(rules_of(self.default))
        self.machine.recover(tables, last_id, self.now)
        assert self.machine.snapshot()[Table.WAITERS] == tables[Table.WAITERS]
        self._after_restart()

    def _after_restart(self) -> None:
        judge = self.judge
        before, kept = dict(judge.open), {each.id: each for each in self.machine.escalations()}
        known = {waiter for waiter in judge.waiting if (waiter,) in self.rows[Table.WAITERS]}
        assert set(kept) == {of_id for of_id, (waiter, _) in before.items() if waiter in known}
        for of_id, escalation in kept.items():
            assert escalation.decide_by >= max(before[of_id][1], self.now + 4 * SECOND)
        judge.waiting = known
        judge.open = {of_id: (each.waiter_id, each.decide_by) for of_id, each in kept.items()}
        live = self.machine.locks(judge.leases), self.machine.reservations(judge.leases)
        judge.leases = {grant_id(lease): lease for leases in live for lease in leases}
        for of_id in judge.told_until:
            assert judge.leases[of_id].preempt_at == max(judge.told_until[of_id], self.now + GRACE)
            judge.told_until[of_id] = judge.leases[of_id].preempt_at
        judge.last_token = self.machine.last_id
        self.journal.clear()
        self.machine.take_notices()
        self.advance(self.now)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nobody_is_hurt_and_every_escalation_closes(seed: int) -> None:
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    assert world.replay().digest() == world.machine.digest()
    # Whatever is open is closed by its time, decided or not.
    last = max((decide_by for _, decide_by in world.judge.open.values()), default=world.now)
    ids = set(world.judge.open)
    world.advance(last)
    assert not ids & set(world.judge.open)


@pytest.mark.parametrize("seed", range(500_000, 500_000 + SEEDS))
def test_restarts_in_between_change_nothing_but_the_graces(seed: int) -> None:
    world = World(seed)
    for _ in range(4):
        for _ in range(STEPS // 4):
            world.step()
        world.restart(world.random.choice([0, 1, 5]) * SECOND)


def test_a_taken_lease_leaves_unknown_by_preemption() -> None:
    ended = []
    for seed in range(10):
        world = World(seed)
        for _ in range(STEPS):
            world.step()
            puts, _ = world.machine.take_changes()
            ended += [row for row in puts.get(Table.ENGAGEMENTS, ()) if row[7] == EndedBy.PREEMPTION]
        assert all(row[4] == 3 for row in ended)
        assert {int(row[0]) for row in ended} >= {
            of_id for of_id, lease in world.judge.dead.items() if isinstance(lease, Lock)
        }
    assert ended, "nothing was ever taken"
