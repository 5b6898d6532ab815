"""Sessions against a naive judge: who holds what until when, and what a keepalive, a goodbye or a crash does.

The judge is a list of leases and a dictionary of sessions; after every step the machine must hold the same,
to the nanosecond. At the end the journal is replayed, and the machine recovered from its rows, each time with
the same result.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coordd.core.commands import (
    CloseSession,
    KeepSession,
    OpenSession,
    ReleaseLock,
    ReleaseResource,
    RequestLock,
    ReserveResource,
)
from coordd.core.errors import CommandError
from coordd.core.limits import SECOND
from coordd.core.machine import Machine
from coordd.core.outcomes import (
    Expired,
    GivenBack,
    Granted,
    LeasesExpiring,
    Queued,
    SessionExpired,
    WaitGranted,
    WaitRefused,
)
from coordd.core.records import KEY_COLUMNS, Lock, Outcome, Row, Table
from coordd.core.rules import KindRule, PoolRule, Rules, TypeRule

T0 = 1_790_000_000 * SECOND
GRACE_NS = 9 * SECOND
RULES = Rules(
    kinds={"like": KindRule(ttl_ns=20 * SECOND, lock_delay_ns=0)},
    types={"db": TypeRule(ttl_ns=15 * SECOND, pool="conns")},
    pools={"conns": PoolRule(capacity=4)},
    limits={},
    recovery_grace_ns=GRACE_NS,
    resume_grace_ns=5 * SECOND,
    session_ttl_ns=12 * SECOND,
)
WORKERS = st.sampled_from(["w1", "w2", "w3"])
TTLS = st.sampled_from([0, 2 * SECOND, 7 * SECOND, 60 * SECOND])
SESSION_TTLS = st.sampled_from([0, 3 * SECOND, 40 * SECOND])


# The column that says when it ends.
_ENDS = {Table.SESSIONS: 6, Table.LOCKS: 5, Table.RESERVATIONS: 7}


@dataclass
class Lease:
    """What the judge knows of one lease."""

    id: int
    worker: str
    item: str
    units: int
    ttl_ns: int
    ends: int


@dataclass
class Life:
    """What the judge knows of one session."""

    id: int
    ttl_ns: int
    ends: int


class Sessions(RuleBasedStateMachine):
    """One machine, one judge."""

    @initialize()
    def begin(self) -> None:
        self.now = T0
        self.machine = Machine(RULES)
        self.machine.recover({}, 0, T0)
        self.rows: dict[Table, dict[tuple[Any, ...], Row]] = {table: {} for table in Table}
        self.journal: list[tuple[int, Any]] = []
        self.leases: dict[int, Lease] = {}
        self.lives: dict[str, Life] = {}
        # Every id that a session of a worker ever had, the last one first.
        self.known: dict[str, list[int]] = {}
        self.has_restarted = False

    # -- what happens ----------------------------------------------------------------------------------------

    @rule(worker=WORKERS, ttl_ns=SESSION_TTLS, is_resuming=st.booleans())
    def register(self, worker: str, ttl_ns: int, *, is_resuming: bool) -> None:
        named = self.known.get(worker, [0])[0] if is_resuming else 0
        opened = self.do(OpenSession(worker=worker, session_id=named, ttl_ns=ttl_ns))
        life = self.lives.get(worker)
        is_resumed = life is not None and life.id == named
        assert opened.is_resumed == is_resumed
        if not is_resumed:
            life = self.lives[worker] = Life(opened.session.id, 0, 0)
            self.known.setdefault(worker, []).insert(0, life.id)
        assert life is not None
        life.ttl_ns = ttl_ns or RULES.session_ttl_ns
        self.keep(worker, life)
        assert set(opened.kept.held) == {lease.id for lease in self.of(worker)}

    @rule(worker=WORKERS, age=st.integers(0, 1))
    def keep_alive(self, worker: str, age: int) -> None:
        named = ([*self.known.get(worker, []), 1, 1])[age]
        kept = self.do(KeepSession(worker=worker, id=named))
        life = self.lives.get(worker)
        if life is None or life.id != named:
            assert kept == "SESSION_LOST"
            return
        self.keep(worker, life)
        ends = [lease.ends for lease in self.of(worker)]
        assert set(kept.held) == {lease.id for lease in self.of(worker)}
        assert kept.first_end == min(ends, default=0)
        assert kept.keepalive_ns == min([life.ttl_ns, *(lease.ttl_ns for lease in self.of(worker))]) // 3

    @rule(worker=WORKERS)
    def say_goodbye(self, worker: str) -> None:
        named = self.known.get(worker, [1])[0]
        mine = self.of(worker)
        closed = self.do(CloseSession(worker=worker, id=named))
        if worker not in self.lives:
            assert closed == "SESSION_LOST"
            return
        del self.lives[worker]
        assert closed.released == len(mine)
        assert {id(grant) for grant in self.given_back} == {id(self.grants[lease.id]) for lease in mine}
        for lease in mine:
            del self.leases[lease.id]
            self.check_history(lease)
        waiting = [waiter.id for waiter in self.machine._waits.waiters.values() if waiter.id > named]
        assert not [each for each in waiting if self.machine._waits.waiters[each].command.worker == worker], (
            "its waits have ended"
        )
        self.take_grants()

    @rule(worker=WORKERS, item=st.sampled_from("abc"), ttl_ns=TTLS, is_waiting=st.booleans())
    def lock(self, worker: str, item: str, ttl_ns: int, *, is_waiting: bool) -> None:
        wait_ns = 10 * SECOND if is_waiting else 0
        self.take(RequestLock(item=item, kind="like", worker=worker, ttl_ns=ttl_ns, wait_ns=wait_ns))

    @rule(worker=WORKERS, units=st.integers(1, 3), ttl_ns=TTLS, is_waiting=st.booleans())
    def reserve(self, worker: str, units: int, ttl_ns: int, *, is_waiting: bool) -> None:
        wait_ns = 10 * SECOND if is_waiting else 0
        self.take(ReserveResource(type="db", worker=worker, units=units, ttl_ns=ttl_ns, wait_ns=wait_ns))

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        if not self.leases:
            return
        lease = data.draw(st.sampled_from(sorted(self.leases.values(), key=lambda each: each.id)))
        command: Any = ReleaseResource(id=lease.id, worker=lease.worker)
        if lease.item:
            command = ReleaseLock(item=lease.item, worker=lease.worker, token=lease.id, outcome=2)
        self.do(command)
        del self.leases[lease.id]
        self.take_grants()

    @rule(by_ns=st.sampled_from([1, SECOND, 3 * SECOND, 5 * SECOND, 13 * SECOND]))
    def let_time_pass(self, by_ns: int) -> None:
        self.advance(self.now + by_ns)

    @rule()
    def crash(self) -> None:
        self.commit()
        self.now += SECOND
        self.machine = self.recovered()
        self.has_restarted = True
        for lease in self.leases.values():
            lease.ends = max(lease.ends, self.now + GRACE_NS)
        for life in self.lives.values():
            life.ends = max(life.ends, self.now + GRACE_NS)

    # -- what must be so -------------------------------------------------------------------------------------

    @invariant()
    def same_leases_and_sessions(self) -> None:
        live = self.machine.locks(self.leases) + self.machine.reservations(self.leases)
        held = {grant.token if isinstance(grant, Lock) else grant.id: grant for grant in live}
        counts = self.machine.counts()
        assert counts.locks + counts.reservations == len(self.leases)
        assert {key: grant.expires_at for key, grant in held.items()} == {
            lease.id: lease.ends for lease in self.leases.values()
        }
        sessions = {view.name: view for view in self.machine.sessions()}
        assert {name: (view.session.id, view.session.expires_at) for name, view in sessions.items()} == {
            worker: (life.id, life.ends) for worker, life in self.lives.items()
        }
        assert {name: view.held for name, view in sessions.items()} == {
            worker: len(self.of(worker)) for worker in self.lives
        }

    @rule()
    def recovered_equals_live(self) -> None:
        """The rows are what is there, and a new machine makes the same of them, but for its graces."""
        self.commit()
        live = self.machine.snapshot()
        stored = {table: sorted(rows.values()) for table, rows in self.rows.items()}
        recovered = self.recovered().snapshot()
        for table in Table:
            # The store has the whole history, not only what decisions need.
            if table != Table.ENGAGEMENTS:
                assert self.but_for_graces(table, stored[table]) == self.but_for_graces(table, live[table])
                assert self.but_for_graces(table, recovered[table], is_recovered=True) == (
                    self.but_for_graces(table, live[table], is_recovered=True)
                )

    def but_for_graces(self, table: Table, rows: list[Row], *, is_recovered: bool = False) -> list[Row]:
        """Return the rows without the column that a restart has moved, and not written since."""
        if table not in _ENDS or not (is_recovered or self.has_restarted):
            return rows
        return [row[: _ENDS[table]] + row[_ENDS[table] + 1 :] for row in rows]

    def teardown(self) -> None:
        if not hasattr(self, "machine") or self.has_restarted:
            return
        machine = Machine(RULES)
        machine.recover({}, 0, T0)
        for at, command in self.journal:
            if command is None:
                machine.tick(at)
            else:
                with contextlib.suppress(CommandError):
                    machine.apply(command, at)
        assert machine.digest() == self.machine.digest()

    # --------------------------------------------------------------------------------------------------------

    @property
    def grants(self) -> dict[int, Any]:
        """Grants that were live before the last command, by id."""
        return self._grants

    def of(self, worker: str) -> list[Lease]:
        """Return what a worker's session keeps."""
        life = self.lives.get(worker)
        if life is None:
            return []
        return [lease for lease in self.leases.values() if lease.worker == worker and lease.id > life.id]

    def keep(self, worker: str, life: Life) -> None:
        life.ends = self.now + life.ttl_ns
        for lease in self.of(worker):
            lease.ends = self.now + lease.ttl_ns

    def do(self, command: Any) -> Any:
        """Apply a command; return the outcome, or the reason of its error."""
        live = self.machine.locks(self.leases) + self.machine.reservations(self.leases)
        self._grants = {grant.token if isinstance(grant, Lock) else grant.id: grant for grant in live}
        self.journal.append((self.now, command))
        before = self.machine.digest()
        try:
            outcome = self.machine.apply(command, self.now)
        except CommandError as error:
            assert self.machine.digest() == before
            return error.reason
        self.notices = self.machine.take_notices()
        self.given_back = [each.grant for each in self.notices if isinstance(each, GivenBack)]
        return outcome

    def take(self, command: Any) -> None:
        outcome = self.do(command)
        if isinstance(outcome, Granted):
            self.granted(outcome.grant)
        self.take_grants()
        assert isinstance(outcome, Granted | Queued) or not command.wait_ns

    def granted(self, grant: Any) -> None:
        is_lock = isinstance(grant, Lock)
        lease = Lease(
            id=grant.token if is_lock else grant.id,
            worker=grant.worker,
            item=grant.item if is_lock else "",
            units=0 if is_lock else grant.units,
            ttl_ns=grant.ttl_ns,
            ends=self.now + grant.ttl_ns,
        )
        self.leases[lease.id] = lease

    def take_grants(self) -> None:
        for notice in self.notices:
            if isinstance(notice, WaitGranted):
                self.granted(notice.grant)

    def advance(self, to: int) -> None:
        while True:
            due_at = self.machine.next_deadline()
            if due_at is None or due_at > to:
                break
            self.now = max(self.now, due_at)
            self.machine.tick(self.now)
            self.journal.append((self.now, None))
            self.look_at(self.machine.take_notices())
        self.now = to
        self.machine.tick(to)
        self.journal.append((to, None))

    def look_at(self, notices: list[Any]) -> None:
        for notice in notices:
            match notice:
                case Expired():
                    grant = notice.grant
                    lease = self.leases.pop(grant.token if isinstance(grant, Lock) else grant.id)
                    assert lease.ends == self.now, "exactly at its time, not before and not after"
                    self.check_history(lease)
                case SessionExpired():
                    assert self.lives.pop(notice.session.worker).ends == self.now
                case LeasesExpiring():
                    life = self.lives[notice.worker]
                    assert notice.session_end == life.ends
                    ending = [lease for lease in self.of(notice.worker) if self.now < lease.ends <= life.ends]
                    assert set(notice.ids) == {lease.id for lease in ending}
                case WaitGranted():
                    self.granted(notice.grant)
                case _:
                    assert isinstance(notice, WaitRefused)

    def check_history(self, lease: Lease) -> None:
        if lease.item:
            [engagement] = [each for each in self.machine._locks.engagements() if each.token == lease.id]
            assert engagement.outcome == Outcome.UNKNOWN

    def commit(self) -> None:
        puts, deletes = self.machine.take_changes()
        for table, rows in puts.items():
            self.rows[table].update({row[: KEY_COLUMNS[table]]: row for row in rows})
        for table, keys in deletes.items():
            for key in keys:
                self.rows[table].pop(key, None)

    def recovered(self) -> Machine:
        tables = {table: [rows[key] for key in sorted(rows)] for table, rows in self.rows.items()}
        tables[Table.ENGAGEMENTS].sort(key=lambda row: (row[5], row[0]))
        machine = Machine(RULES)
        machine.recover(tables, self.machine.last_id, self.now)
        return machine


TestSessions = Sessions.TestCase
