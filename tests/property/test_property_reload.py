"""A reload at any point: what was promised is kept, and with other rules it comes to what a restart would."""

from copy import deepcopy
from random import Random
from typing import Any, ClassVar

import pytest
from everything_monkey import EverythingMonkey, Tables, run
from everything_rules import everything
from hypothesis import settings
from msgspec.structs import replace

from coordd.core.commands import AcquireBundle, LeaveWait
from coordd.core.errors import CommandError
from coordd.core.machine import Machine
from coordd.core.outcomes import WaitGranted, WaitRefused, WaitVoided
from coordd.core.records import Table
from coordd.core.rules import Rules

_MONKEYS = 12 if settings().max_examples < 1_000 else 1_000


class Reload:
    """In a monkey's journal: a reload, with what was stored then."""

    def __init__(self, rules: Rules, stored: Tables) -> None:
        self.rules = rules
        self.stored = stored

    def do(self, machine: Machine, now: int) -> None:
        machine.reload(self.rules, deepcopy(self.stored), now)


class Replayed(Machine):
    """A machine that takes a reload like a command."""

    def apply(self, command: Any, now: int) -> Any:
        return command.do(self, now) if isinstance(command, Reload) else super().apply(command, now)


class Reloading(EverythingMonkey):
    """A monkey whose rules, the same, are put in force again now and then: its judge notices nothing."""

    reloads: ClassVar[int] = 0

    def step(self) -> None:
        if self.random.random() < 0.03:
            self.reload()
        super().step()

    def reload(self) -> None:
        self.check_rows()
        before = self.machine.snapshot()
        hopeless = {w.id for w in self.judge.waiting.values() if self._is_hopeless(w.command)}
        reload = Reload(self.rules, self.stored())
        self.segment.told.append((self.now, reload))
        reload.do(self.machine, self.now)
        after = self.machine.snapshot()
        self.hear_voided(hopeless)
        if not any(isinstance(notice, WaitGranted | WaitRefused) for notice in self.notices()):
            # All is as it was, but for those who wait for more than upstream has taught that there is.
            before[Table.WAITERS] = [row for row in before[Table.WAITERS] if row[0] not in hopeless]
            before[Table.ESCALATIONS] = [row for row in before[Table.ESCALATIONS] if row[1] not in hopeless]
            assert set(before.pop(Table.ENGAGEMENTS)) <= set(after.pop(Table.ENGAGEMENTS))
            assert before == after
        self.settle_notices()
        self.settled()
        type(self).reloads += 1

    def notices(self) -> list[Any]:
        return self.machine._ledger.notices

    def hear_voided(self, hopeless: set[int]) -> None:
        voided = [notice for notice in self.notices() if isinstance(notice, WaitVoided)]
        assert {notice.waiter.id for notice in voided} == hopeless
        self.machine._ledger.notices = [notice for notice in self.notices() if notice not in voided]
        judge = self.judge
        judge.waiting = {id_: w for id_, w in judge.waiting.items() if id_ not in hopeless}
        judge.escalations = {id_: w for id_, w in judge.escalations.items() if w not in hopeless}

    def stored(self) -> Tables:
        history = sorted(self.store[Table.ENGAGEMENTS].values(), key=lambda row: (row[5], row[0]))
        return {Table.CELLS: sorted(self.store[Table.CELLS].values()), Table.ENGAGEMENTS: history}


@pytest.mark.parametrize("seed", range(_MONKEYS))
def test_nobody_notices_a_reload_of_the_same_rules(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even seeds never restart, odd ones do: what a restart has extended stays so."""
    monkeypatch.setattr("everything_monkey.EverythingMonkey", Reloading)
    monkeypatch.setattr("everything_monkey.Machine", Replayed)
    Reloading.reloads = 0
    run(seed, 250)
    assert Reloading.reloads


def other(random: Random) -> Rules:
    """Return rules over the same names, some of which are gone."""
    drawn = everything(random)
    kept = {
        field: {name: rule for name, rule in getattr(drawn, field).items() if random.random() < 0.8}
        for field in ("kinds", "types", "limits")
    }
    intervals = {
        name: replace(rule, min_interval_after_ns=_within(rule.min_interval_after_ns, kept["kinds"]))
        for name, rule in kept["kinds"].items()
    }
    # No grace, which a reload does not give.
    return replace(drawn, **{**kept, "kinds": intervals}, recovery_grace_ns=0, preempt_grace_ns=0)


def _within(of_kinds: Any, kinds: Any) -> Any:
    return {name: length for name, length in of_kinds.items() if name in kinds}


def grown(seed: int) -> Reloading:
    monkey = Reloading(seed)
    for _ in range(200):
        EverythingMonkey.step(monkey)
    return monkey


def state(machine: Machine) -> tuple[Any, ...]:
    """All that decisions depend on, but for what a restart makes of those who were connected, and the ids."""
    parts = machine._parts
    aside = sorted((key, sorted(marks)) for key, marks in parts.queues.aside.items())
    undurable = (parts.locks.rests(), parts.rate_limits.pending(), repr(parts.sharing.state()))
    waiting = sorted((waiter.id, waiter.order_ns) for waiter in parts.waits.waiters.values())
    return machine.snapshot(), aside, undurable, waiting


@pytest.mark.parametrize("seed", range(2 * _MONKEYS))
def test_a_reload_comes_to_what_a_restart_with_the_new_rules_comes_to(seed: int) -> None:
    """With everybody away, whom a restart does not know to be there, and no grace."""
    monkey = grown(seed)
    machine, now = monkey.machine, monkey.now
    for waiter_id in list(machine._waits.waiters):
        machine.apply(LeaveWait(id=waiter_id), now)
    machine.take_notices()
    monkey.commit()
    rules = other(Random(seed))
    tables = {table: [rows[key] for key in sorted(rows)] for table, rows in monkey.store.items()}
    tables[Table.ENGAGEMENTS] = monkey.stored()[Table.ENGAGEMENTS]
    restarted = Machine(rules)
    # What a restart finds is what was written at the ends of leases that it has extended in memory only.
    live = machine.snapshot()
    for table in (Table.LOCKS, Table.RESERVATIONS, Table.SESSIONS):
        tables[table] = live[table]
    restarted.recover(deepcopy(tables), machine.last_id, now)
    machine.reload(rules, deepcopy(monkey.stored()), now)
    assert state(machine) == state(restarted)
    deleted = machine.take_changes()[1], restarted.take_changes()[1]
    assert {table: sorted(keys) for table, keys in deleted[0].items() if keys} == {
        table: sorted(keys) for table, keys in deleted[1].items() if keys
    }


@pytest.mark.parametrize("seed", range(2 * _MONKEYS))
def test_whoever_waits_keeps_the_place_or_is_told(seed: int) -> None:
    monkey = grown(seed)
    machine, now = monkey.machine, monkey.now
    machine.take_notices()
    monkey.commit()
    before = {waiter.id: (waiter, waiter.away_until) for waiter in machine._waits.waiters.values()}
    rules = other(Random(seed))
    machine.reload(rules, deepcopy(monkey.stored()), now)
    told = {
        notice.waiter.id: notice
        for notice in machine.take_notices()
        if isinstance(notice, WaitGranted | WaitRefused | WaitVoided)
    }
    waits = machine._waits
    for id_, (waiter, away_until) in before.items():
        assert (id_ in waits.waiters) != (id_ in told)
        if id_ in waits.waiters:
            assert waits.waiters[id_] is waiter
            assert waiter.away_until == away_until
            assert bool(waiter.key) != bool(away_until)
        elif isinstance(told[id_], WaitVoided):
            # As whoever asks now is told, of a bundle perhaps another part first.
            with pytest.raises(CommandError) as caught:
                Machine(rules).apply(replace(waiter.command, wait_ns=1, request_id=""), now)
            is_bundle = isinstance(waiter.command, AcquireBundle)
            assert is_bundle or caught.value.reason == told[id_].error.reason
        else:
            assert not away_until
    for waiter in waits.waiters.values():
        if waiter.key:
            assert waits._check_again(waiter, now) is not None, "left behind"
    # And all of it is written.
    monkey.rules = rules
    monkey.commit()
    snapshot = machine.snapshot()
    monkey.commit()
    for table, rows in monkey.store.items():
        stored, live = sorted(rows.values()), snapshot[table]
        if table in (Table.ENGAGEMENTS, Table.CELLS, Table.FOREIGN_USAGES, Table.ENDED_REQUESTS):
            assert set(live) <= set(stored), table
        else:
            assert live == stored, table
