"""A monkey that wants several things at once: random histories with bundles in them, from a seed."""

from copy import deepcopy
from random import Random
from typing import Any

from bundle_judge import Judge, Waiting

from coordd.core import commands
from coordd.core.errors import CommandError, FailedPrecondition
from coordd.core.limits import MILLISECOND, SECOND
from coordd.core.machine import Machine
from coordd.core.outcomes import (
    BundleEnded,
    Expired,
    Granted,
    Reason,
    Refused,
    WaitGranted,
    WaitRefused,
    grant_id,
)
from coordd.core.records import KEY_COLUMNS, Bundle, Lock, Permit, Reservation, Row, Table
from coordd.core.rules import (
    CRITICAL,
    HIGH,
    LOW,
    MEDIUM,
    PRIORITIES,
    KindRule,
    LimitRule,
    PoolRule,
    Rules,
    TypeRule,
)
from coordd.core.waiters import ReturnGrant

T0 = 1_790_000_000 * SECOND
PATIENCE = 6 * SECOND
TTL = 12 * SECOND
RULES = Rules(
    kinds={"like": KindRule(ttl_ns=TTL, lock_delay_ns=0)},
    types={"db": TypeRule(ttl_ns=TTL, pool="conns"), "file": TypeRule(ttl_ns=TTL)},
    pools={"conns": PoolRule(capacity=3)},
    limits={
        "search": LimitRule(windows={10 * SECOND: 3, 30 * SECOND: 6}, use_within_ns=3 * SECOND),
        "post": LimitRule(windows={8 * SECOND: 2}, use_within_ns=SECOND),
    },
    boost_ns={LOW: 0, MEDIUM: 10 * SECOND, HIGH: 20 * SECOND, CRITICAL: 1_000_000 * SECOND},
    resume_grace_ns=7 * SECOND,
    recovery_grace_ns=9 * SECOND,
    request_memory_ns=25 * SECOND,
    bundle_patience_ns=PATIENCE,
    engagement_memory_ns=60 * SECOND,
)
_GONE = ("REQUEST_ENDED", "REQUEST_ID_REUSED")


class BundleMonkey:
    """One machine, its judge, a store of rows, and a journal of all that was done."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = T0
        self.machine = Machine(RULES)
        self.machine.recover({}, 0, T0)
        self.judge = Judge(RULES)
        self.store: dict[Table, dict[tuple[Any, ...], Row]] = {table: {} for table in Table}
        self.journal: list[tuple[int, Any]] = []
        self.unheard: dict[int, Any] = {}
        self.bundles: dict[int, str] = {}
        self.granted = self.waited = 0
        # Some come in crowds of bundles, some hardly.
        self.weight = self.random.choice([2, 6, 12])
        self.density = self.random.choice([0.2, 0.35, 0.5])
        self.request_ids = self.random.choice([[""], ["", "r1", "r2"], ["r1", "r2", "r3", "r4"]])
        self.wait_s = self.random.choice([(0, 5, 60), (60,), (0,)])

    # -- steps -----------------------------------------------------------------------------------------------

    def step(self) -> None:
        deeds = {
            self.acquire: self.weight,
            self.single: 5,
            self.release_bundle: 4,
            self.renew_bundle: 1,
            self.release_single: 3,
            self.leave: 1,
            self.come_back: 2,
            self.return_grant: 1,
            self.force: 1,
            self.let_time_pass: 4,
        }
        self.random.choices(list(deeds), list(deeds.values()))[0]()

    def acquire(self) -> None:
        wanting = self._wanting()
        worker = wanting["worker"]
        claims = [claim for claim in self._claims(worker) if self.random.random() < self.density]
        conditions = self.random.random() < 0.15
        self.ask(
            commands.AcquireBundle(
                locks=_of(commands.RequestLock, claims),
                reservations=_of(commands.ReserveResource, claims),
                permits=_of(commands.TakePermit, claims) or self._permit(worker),
                not_engaged=(commands.NotEngaged(item="a", within_ns=20 * SECOND),) if conditions else (),
                **wanting,
            )
        )

    def _permit(self, worker: str) -> tuple[commands.TakePermit, ...]:
        return (commands.TakePermit(endpoint="post", worker=worker),)

    def _claims(self, worker: str) -> list[Any]:
        random = self.random
        return [
            *(commands.RequestLock(item=item, kind="like", worker=worker) for item in "ab"),
            commands.ReserveResource(type="file", resource_id="x", worker=worker),
            commands.ReserveResource(
                type="db", resource_id=random.choice(["", "y"]), units=random.randint(1, 3), worker=worker
            ),
            commands.TakePermit(endpoint="search", count=random.randint(1, 3), worker=worker),
            commands.TakePermit(endpoint="post", count=random.randint(1, 2), worker=worker),
        ]

    def single(self) -> None:
        wanting = self._wanting()
        claim = self.random.choice(self._claims(wanting["worker"]))
        self.ask(_with(claim, wanting))

    def _wanting(self) -> dict[str, Any]:
        return {
            "worker": self.random.choice(["w1", "w2", "w3"]),
            "priority": self.random.choice((*PRIORITIES, MEDIUM, MEDIUM, MEDIUM)),
            "request_id": self.random.choice(self.request_ids),
            "wait_ns": self.random.choice(self.wait_s) * SECOND,
        }

    def release_bundle(self) -> None:
        if not self.bundles:
            return
        name = self.random.choice(sorted(self.bundles))
        held = [held for held in self.judge.live.values() if held.bundle == name]
        reported = [h for h in held if isinstance(h.record, Permit) and self.random.random() < 0.8]
        usages = tuple(self._usage(h) for h in reported)
        outcome = self.random.choice([1, 2, 3])
        released = self.do(
            commands.ReleaseBundle(id=name, worker=self.bundles[name], outcome=outcome, usages=usages)
        )
        assert (released.bundle is not None) == bool(held)
        locks = [h.id for h in held if isinstance(h.record, Lock)]
        assert [engagement.token for engagement in released.engagements] == locks
        for each in held:
            if each in reported:
                usage = next(usage for usage in usages if usage.id == each.id)
                self.judge.settle(each.id, self.now, is_sent=usage.is_sent)
            if each in reported or not isinstance(each.record, Permit):
                self.judge.end(each.id, now=self.now, counts=each.id in locks and outcome != 2)
            each.bundle = 0
        del self.bundles[name]
        self.settled()

    def _usage(self, held: Any) -> commands.RecordUsage:
        is_sent = self.random.random() < 0.5
        return commands.RecordUsage(
            endpoint=held.record.endpoint,
            worker=held.worker,
            id=held.id,
            is_sent=is_sent,
            is_success=is_sent,
        )

    def renew_bundle(self) -> None:
        if self.bundles:
            name = self.random.choice(sorted(self.bundles))
            try:
                renewed = self.do(commands.RenewBundle(id=name, worker=self.bundles[name])).grant
            except FailedPrecondition:
                return
            for member in renewed.held:
                if not isinstance(member, Permit):
                    assert member.expires_at == self.now + member.ttl_ns
                    self.judge.live[grant_id(member)].ends_at = member.expires_at
            self.settled()

    def release_single(self) -> None:
        if not self.judge.live:
            return
        held = self.judge.live[self.random.choice(sorted(self.judge.live))]
        record = held.record
        if isinstance(record, Lock):
            outcome = self.random.choice([1, 2])
            self.do(
                commands.ReleaseLock(
                    item=record.item, worker=held.worker, token=record.token, outcome=outcome
                )
            )
            self.judge.end(held.id, now=self.now, counts=outcome == 1)
        elif isinstance(record, Reservation):
            self.do(commands.ReleaseResource(id=held.id, worker=held.worker))
            self.judge.end(held.id, now=self.now)
        else:
            usage = self._usage(held)
            self.do(usage)
            self.judge.settle(held.id, self.now, is_sent=usage.is_sent)
            self.judge.end(held.id, now=self.now)
        self.settled()

    def leave(self) -> None:
        if self.judge.waiting:
            waiting = self.judge.waiting[self.random.choice(sorted(self.judge.waiting))]
            is_away = self.do(commands.LeaveWait(id=waiting.id)).is_away
            assert is_away == bool(waiting.command.request_id)
            waiting.is_away = is_away
            if not is_away:
                del self.judge.waiting[waiting.id]
            self.settled()

    def come_back(self) -> None:
        known = [waiting for waiting in self.judge.waiting.values() if waiting.command.request_id]
        if known:
            self.ask(_with(self.random.choice(known).command, {"wait_ns": 60 * SECOND}))

    def return_grant(self) -> None:
        if self.unheard:
            name, waiter = self.unheard.popitem()
            returned = self.do(ReturnGrant(id=name, waiter=deepcopy(waiter))).grant
            members = [h.id for h in self.judge.live.values() if name in (h.id, h.bundle)]
            assert (returned is None) == (not members)
            for member in members:
                self.judge.undo(member)
            self.bundles.pop(name, None)
            if returned is not None and waiter.command.request_id:
                self._take_in(waiter.id, waiter.command, waiter.order_ns, waiter.enqueued_at).is_away = True
            self.advance(self.now)

    def force(self) -> None:
        names = sorted([h.id for h in self.judge.live.values() if not isinstance(h.record, Permit)])
        name = self.random.choice([*names, *sorted(self.bundles), 0])
        if name and (name in self.judge.live or name in self.judge.bundles()):
            self.do(commands.ForceRelease(id=name, reason="because"))
            for held in [h for h in self.judge.live.values() if name in (h.id, h.bundle)]:
                if name == held.bundle:
                    held.bundle = 0
                if not isinstance(held.record, Permit):
                    self.judge.end(held.id, now=self.now, counts=isinstance(held.record, Lock))
            self.settled()

    def let_time_pass(self) -> None:
        due_at = self.machine.next_deadline()
        if due_at is not None and self.random.random() < 0.5:
            self.advance(max(self.now, due_at + self.random.choice([-1, 0, 0, 1])))
        else:
            self.advance(self.now + self.random.choice([MILLISECOND, SECOND, 4 * SECOND, 12 * SECOND]))

    # -- asking ----------------------------------------------------------------------------------------------

    def ask(self, command: Any) -> Any:
        """Ask for something, and have the answer judged."""
        rank = (self.judge.order(command, self.now), self.machine.last_id + 1)
        before = self.machine.digest()
        try:
            outcome = self.do(command)
        except CommandError as error:
            self._note_error(error, before)
            return None
        if isinstance(outcome, Granted):
            if not outcome.is_repeat:
                self._note_granted(command, outcome, rank)
        elif isinstance(outcome, Refused):
            self._note_refused(command, outcome, rank, before)
        elif outcome.is_resumed:
            self.judge.waiting[outcome.id].is_away = False
        else:
            self.waited += 1
            waiting = self._take_in(outcome.id, command, rank[0], self.now)
            self.judge.judge_refusal(command, waiting.rank, self.now)
        self.settled()
        return outcome

    def _note_error(self, error: CommandError, before: bytes) -> None:
        assert error.reason in _GONE
        assert self.machine.digest() == before

    def _note_granted(self, command: Any, outcome: Granted, rank: tuple[int, int]) -> None:
        waiter = outcome.waiter
        if waiter is None:
            self._note_grant(command, outcome.grant, rank)
            return
        waiting = self.judge.waiting.pop(waiter.id)
        self._note_grant(waiter.command, outcome.grant, waiting.rank)
        self.unheard[grant_id(outcome.grant)] = waiter

    def _note_refused(self, command: Any, outcome: Refused, rank: tuple[int, int], before: bytes) -> None:
        resumed = [w for w in self.judge.waiting.values() if _same_request(w.command, command)]
        if resumed:
            # One whose condition can't hold any more is out; nothing else ends a wait here.
            if outcome.reason == Reason.RECENTLY_ENGAGED and self.machine.digest() != before:
                del self.judge.waiting[resumed[0].id]
            return
        assert self.machine.digest() == before, "a refusal has changed something"
        self.judge.judge_refusal(command, rank, self.now)

    def _note_grant(self, command: Any, grant: Any, rank: tuple[int, int]) -> None:
        self.judge.judge_grant(command, grant, rank, self.now)
        if isinstance(grant, Bundle):
            self.granted += 1
            self.bundles[grant.id] = grant.worker

    def _take_in(self, id: int, command: Any, order: int, since: int) -> Waiting:
        self.judge.waiting[id] = Waiting(id, command, order, since)
        return self.judge.waiting[id]

    def do(self, command: Any) -> Any:
        self.journal.append((self.now, deepcopy(command)))
        return self.machine.apply(command, self.now)

    def advance(self, to: int) -> None:
        while True:
            self.settle_notices()
            due_at = self.machine.next_deadline()
            if due_at is None or due_at > to:
                break
            self.now = max(self.now, due_at)
            self._tick()
        self.now = to
        self._tick()
        self.settled()

    def _tick(self) -> None:
        self.machine.tick(self.now)
        self.journal.append((self.now, None))
        self.settle_notices()

    # -- what follows ----------------------------------------------------------------------------------------

    def settle_notices(self) -> None:
        for notice in self.machine.take_notices():
            if isinstance(notice, Expired):
                self._note_expired(notice.grant)
            elif isinstance(notice, WaitGranted):
                waiting = self.judge.waiting.pop(notice.waiter.id)
                assert not waiting.is_away
                self._note_grant(waiting.command, notice.grant, waiting.rank)
                self.unheard[grant_id(notice.grant)] = notice.waiter
            elif isinstance(notice, WaitRefused):
                del self.judge.waiting[notice.waiter.id]
            else:
                assert isinstance(notice, BundleEnded)
                assert notice.bundle.id not in self.judge.bundles() - self._dead(notice.bundle.id)

    def _dead(self, name: int) -> set[int]:
        # The judge is told of a single release after the machine has done it.
        return {name} if sum(h.bundle == name for h in self.judge.live.values()) <= 1 else set()

    def _note_expired(self, grant: Any) -> None:
        if isinstance(grant, Bundle):
            assert grant.id not in self.judge.bundles(), "a bundle has ended before its last member"
            self.bundles.pop(grant.id, None)
            return
        held = self.judge.live[grant_id(grant)]
        assert held.ends_at <= self.now
        self.judge.end(held.id, now=self.now, counts=isinstance(grant, Lock))

    def settled(self) -> None:
        """Check that everything is as it was told, and that nobody is left behind."""
        self.settle_notices()
        judge, counts = self.judge, self.machine.counts()
        live = [held.record for held in judge.live.values()]
        assert counts.locks == sum(isinstance(record, Lock) for record in live)
        assert counts.reservations == sum(isinstance(record, Reservation) for record in live)
        assert counts.permits == sum(isinstance(record, Permit) for record in live)
        assert counts.bundles == len(judge.bundles()), "a bundle without members, or members without theirs"
        assert counts.waiters == len(judge.waiting)
        judge.judge_rest(self.now)
        aside = {rank[:2] for marks in self.machine._queues.aside.values() for rank in marks}
        assert aside <= {waiting.rank for waiting in judge.impatient((1 << 63, 0), self.now)}

    # -- recovery and replay ---------------------------------------------------------------------------------

    def commit(self) -> None:
        puts, deletes = self.machine.take_changes()
        for table, rows in puts.items():
            self.store[table].update({row[: KEY_COLUMNS[table]]: row for row in rows})
        for table, keys in deletes.items():
            for key in keys:
                self.store[table].pop(key, None)

    def restart(self) -> None:
        """Go on with a machine that was recovered from the rows."""
        self.commit()
        snapshot = self.machine.snapshot()
        for table in (Table.LOCKS, Table.RESERVATIONS, Table.PERMITS, Table.BUNDLES, Table.WAITERS):
            stored = sorted(self.store[table].values())
            if table in (Table.LOCKS, Table.RESERVATIONS):
                # What a restart has added to leases is in memory only.
                assert [row[0] for row in stored] == [row[0] for row in snapshot[table]], table
            else:
                assert stored == snapshot[table], table
        tables = {table: [rows[key] for key in sorted(rows)] for table, rows in self.store.items()}
        tables[Table.ENGAGEMENTS].sort(key=lambda row: (row[5], row[0]))
        former = self.machine.last_id
        self.machine = Machine(RULES)
        self.machine.recover(tables, former, self.now)
        for held in self.judge.live.values():
            held.record = self.machine._ledger.live[held.id]
            if not isinstance(held.record, Permit):
                held.ends_at = held.record.expires_at
        for waiting in list(self.judge.waiting.values()):
            waiting.is_away = True
            if not waiting.command.request_id:
                del self.judge.waiting[waiting.id]
        self.unheard.clear()
        self.journal.clear()
        self.advance(self.now)

    def replay(self) -> bytes:
        """Return the digest of a fresh machine that was told the same."""
        machine = Machine(RULES)
        machine.recover({}, 0, T0)
        for now, command in self.journal:
            if command is None:
                machine.tick(now)
            else:
                try:
                    machine.apply(deepcopy(command), now)
                except CommandError:
                    continue
        return machine.digest()

    def wind_up(self) -> int:
        """Let every holder release, over and over; return how many rounds it took to serve everybody."""
        self.unheard.clear()
        rounds = 0
        while self.judge.waiting:
            rounds += 1
            assert rounds < 500, f"never served: {self.judge.waiting}"
            for name in sorted(self.judge.live):
                if name in self.judge.live:
                    self._give_back(self.judge.live[name])
            self.advance(self.now + SECOND)
            for waiting in list(self.judge.waiting.values()):
                if waiting.is_away and waiting.id in self.judge.waiting:
                    self.ask(_with(waiting.command, {"wait_ns": 3_600 * SECOND}))
        for name in sorted(self.judge.live):
            self._give_back(self.judge.live[name])
        self.settled()
        return rounds

    def _give_back(self, held: Any) -> None:
        record = held.record
        if isinstance(record, Lock):
            self.do(commands.ReleaseLock(item=record.item, worker=held.worker, token=record.token, outcome=2))
        elif isinstance(record, Reservation):
            self.do(commands.ReleaseResource(id=held.id, worker=held.worker))
        else:
            usage = commands.RecordUsage(
                endpoint=record.endpoint, worker=held.worker, id=held.id, is_sent=False, is_success=False
            )
            self.do(usage)
            self.judge.settle(held.id, self.now, is_sent=False)
        self.judge.end(held.id, now=self.now)
        self.settled()


def _of(sort: type, claims: list[Any]) -> tuple[Any, ...]:
    return tuple(claim for claim in claims if isinstance(claim, sort))


def _with(command: Any, changes: dict[str, Any]) -> Any:
    fields = {name: getattr(command, name) for name in command.__struct_fields__}
    return type(command)(**(fields | changes))


def _same_request(one: Any, other: Any) -> bool:
    return bool(one.request_id) and (one.worker, one.request_id) == (other.worker, other.request_id)


def run(seed: int, steps: int) -> BundleMonkey:
    """Let a monkey do `steps` things."""
    monkey = BundleMonkey(seed)
    for _ in range(steps):
        monkey.step()
    return monkey
