"""A monkey that has everything: random histories over rules that switch every feature on, from a seed.

`python everything_monkey.py FIRST COUNT STEPS` runs many, and says which seeds fail.
"""

import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import product
from random import Random
from typing import Any

from everything_judge import Held, Judge, Waiting
from everything_rules import everything

from coordd.core import commands
from coordd.core.errors import CommandError
from coordd.core.limits import MILLISECOND, SECOND
from coordd.core.machine import Machine
from coordd.core.outcomes import (
    Alert,
    Booked,
    BookingCancelled,
    BundleEnded,
    BundleReleased,
    CapacityChanged,
    EscalationChanged,
    EscalationResolved,
    Expired,
    Forced,
    GateChanged,
    GivenBack,
    Granted,
    GrantReturned,
    LeasesExpiring,
    LimitLearned,
    LockReleased,
    Place,
    Preempted,
    Queued,
    Reason,
    Refused,
    Renewed,
    ResourceReleased,
    SessionClosed,
    SessionExpired,
    SessionKept,
    SessionOpened,
    Updated,
    UsageRecorded,
    WaiterLeft,
    WaitGranted,
    WaitRefused,
    grant_id,
)
from coordd.core.records import KEY_COLUMNS, Booking, Bundle, Decision, Lock, Permit, Reservation, Row, Table
from coordd.core.rules import PRIORITIES
from coordd.core.views import PoolView
from coordd.core.waiters import ReturnGrant

T0 = 1_790_000_000 * SECOND
Tables = dict[Table, list[Row]]
_WORKERS = ("w1", "w2", "w3", "w4")
_KINDS = ("reply", "like", "quote")
_ENDPOINTS = {"search": 4, "post": 3, "plain": 5}
_WANTED = [
    ("db", "", 1),
    ("db", "", 2),
    ("db", "", 3),
    ("db", "", 5),
    ("db", "x", 0),
    ("db", "x", 2),
    ("gpu", "", 1),
    ("gpu", "", 2),
    ("gpu", "x", 1),
    ("file", "x", 0),
    ("slot", "", 1),
    ("slot", "", 3),
    ("slot", "y", 2),
    ("spare", "", 1),
    ("quota", "tweet", 1),
    ("quota", "tweet", 2),
    ("quota", "mail", 2),
    ("post", "x", 1),
    ("post", "y", 2),
    ("nothing", "", 1),
]


class Segment:
    """What one machine, from its recovery on, was told; for its replay."""

    def __init__(self, tables: Tables, last_id: int, at: int) -> None:
        self.tables, self.last_id, self.at = tables, last_id, at
        self.told: list[tuple[int, Any]] = []


class EverythingMonkey:
    """One machine, its judge, a store of rows, and all that was done."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.rules = everything(random)
        self.now = T0
        self.judge = Judge(self.rules)
        self.store: dict[Table, dict[tuple[Any, ...], Row]] = {table: {} for table in Table}
        self.unheard: dict[int, Any] = {}
        self.machine = Machine(self.rules)
        self._start({}, 0)
        self.is_hasty = False
        self.grants = self.probes = self.shed = self.taken = 0
        # Each prefers some things: a crowd at one queue finds what an even spread does not.
        self.deeds = [deed for deed, _ in self._deeds()]
        self.weights = [weight * random.choice([0, 1, 1, 1, 2, 4]) for _, weight in self._deeds()]
        self.weights[-1] = random.choice([2, 6, 14])
        self.request_ids = random.choice([[""], ["", "", "r1", "r2"], ["r1", "r2", "r3", "r4", "r5", "r6"]])
        self.waits_s = random.choice([(0, 5, 60), (5, 60), (60, 60, 60, 0), (60,)])
        self.density = random.choice([0.1, 0.2, 0.35])
        # How often upstream refuses, and how often the digest is looked at.
        self.refuses = random.choice([0.0, 0.1, 0.5])
        self.is_learning = random.random() < 0.6

    def _start(self, tables: Tables, last_id: int) -> None:
        self.machine.recover(deepcopy(tables), last_id, self.now)
        self.segment = Segment(tables, last_id, self.now)
        self.judge.last_id = max(self.judge.last_id, self.machine.last_id)

    def _deeds(self) -> list[tuple[Callable[[], None], int]]:
        return [
            (self.request_lock, 9),
            (self.reserve, 14),
            (self.take_permit, 12),
            (self.acquire, 9),
            (self.schedule, 2),
            (self.claim, 2),
            (self.release, 6),
            (self.renew, 2),
            (self.report, 5),
            (self.release_bundle, 2),
            (self.renew_bundle, 1),
            (self.cancel, 1),
            (self.open_session, 1),
            (self.keep_session, 2),
            (self.close_session, 1),
            (self.resolve, 5),
            (self.leave, 3),
            (self.come_back, 4),
            (self.return_grant, 2),
            (self.force, 1),
            (self.update, 1),
            (self.use_the_dead, 2),
            (self.look, 1),
            (self.commit, 1),
            (self.hurry, 1),
            (self.let_time_pass, 6),
        ]

    def step(self) -> None:
        """Do one thing."""
        self.random.choices(self.deeds, self.weights)[0]()

    # -- deeds -----------------------------------------------------------------------------------------------

    def _wanting(self) -> dict[str, Any]:
        return {
            "worker": self.random.choice(_WORKERS),
            "priority": self.random.choice(PRIORITIES),
            "request_id": self.random.choice(self.request_ids),
            "wait_ns": self.random.choice(self.waits_s) * SECOND,
        }

    def _pick(self, found: Any) -> Any:
        return self.random.choice(sorted(found)) if found else None

    def _lock(self, **more: Any) -> commands.RequestLock:
        kind, item = self.random.choice(("like", *_KINDS)), self.random.choice("ab")
        return commands.RequestLock(item=item, kind=kind, **more)

    def _permit(self, **more: Any) -> commands.TakePermit:
        endpoint = self.random.choice(list(_ENDPOINTS))
        return commands.TakePermit(endpoint=endpoint, count=self.random.choice([1, 1, 1, 2, 3]), **more)

    def _reservation(self, **more: Any) -> commands.ReserveResource:
        type_, resource_id, units = self.random.choice(_WANTED)
        return commands.ReserveResource(type=type_, resource_id=resource_id, units=units, **more)

    def _conflict(self) -> dict[str, int]:
        return {"on_conflict": self.random.choice([0, 0, 0, 1, 2, 3])}

    def request_lock(self) -> None:
        quality = self.random.choice([0.0, 0.5, 1.0])
        self.do(self._lock(quality=quality, **self._conflict(), **self._wanting()))

    def reserve(self) -> None:
        self.do(self._reservation(**self._conflict(), **self._wanting()))

    def take_permit(self) -> None:
        self.do(self._permit(**self._wanting()))

    def acquire(self) -> None:
        wanting, random = self._wanting(), self.random
        worker, priority = wanting["worker"], wanting["priority"]
        quality = random.choice([0.0, 1.0])
        more = {"worker": worker, "priority": priority}
        locks = [self._lock(quality=quality, **more) for _ in range(2) if random.random() < self.density * 2]
        reservations = [self._reservation(**more) for _ in range(3) if random.random() < self.density * 2]
        permits = [self._permit(**more) for _ in range(3) if random.random() < self.density * 2]
        conditions = [
            commands.NotEngaged(item=random.choice("ab"), within_ns=random.choice([5, 20, 61]) * SECOND)
            for _ in range(2)
            if random.random() < self.density / 2
        ]
        self.do(
            commands.AcquireBundle(
                locks=tuple(locks),
                reservations=tuple(reservations),
                permits=tuple(permits if permits or locks or reservations else [self._permit(**more)]),
                not_engaged=tuple(conditions),
                quality=quality,
                **self._conflict(),
                **wanting,
            )
        )

    def schedule(self) -> None:
        wanting = self._wanting()
        del wanting["wait_ns"]
        self.do(
            commands.ScheduleRequest(
                endpoint=self.random.choice(list(_ENDPOINTS)),
                count=self.random.choice([1, 2, 3]),
                not_before_ns=self.random.choice([0, 0, 7 * SECOND]),
                **wanting,
            )
        )

    def claim(self) -> None:
        id_ = self._pick(self.judge.slots)
        if id_ is not None:
            slot = self.judge.slots[id_]
            if slot.execute_at > self.now and self.random.random() < 0.5:
                self.advance(slot.execute_at)
            self.do(
                commands.TakePermit(
                    endpoint=slot.endpoint,
                    worker=slot.worker,
                    booking_id=slot.id,
                    request_id=self.random.choice(self.request_ids),
                )
            )

    def release(self) -> None:
        id_ = self._pick([h.id for h in self.judge.held.values() if not isinstance(h.record, Permit)])
        if id_ is not None:
            self.do(self._releasing(self.judge.held[id_]))

    def _releasing(self, held: Any) -> Any:
        record, random = held.record, self.random
        if isinstance(record, Lock):
            return commands.ReleaseLock(
                item=record.item, worker=held.worker, token=held.id, outcome=random.choice([1, 2, 2, 3])
            )
        if isinstance(record, Reservation):
            unused = random.choice([0, 0, 1, 2]) if record.is_refilling else 0
            return commands.ReleaseResource(
                id=held.id,
                worker=held.worker,
                unused_units=unused,
                result=random.choice([0, 1, 1, 2]),
                latency_ns=random.choice([0, SECOND, 9 * SECOND]),
            )
        return self._reporting(held)

    def renew(self) -> None:
        id_ = self._pick([h.id for h in self.judge.held.values() if not isinstance(h.record, Permit)])
        if id_ is not None:
            self.do(self._renewing(self.judge.held[id_], self.random.choice([0, SECOND, 9 * SECOND])))

    def _renewing(self, held: Any, ttl_ns: int) -> Any:
        record = held.record
        if isinstance(record, Lock):
            return commands.RenewLock(item=record.item, worker=held.worker, token=held.id, ttl_ns=ttl_ns)
        return commands.RenewReservation(id=held.id, worker=held.worker, ttl_ns=ttl_ns)

    def report(self) -> None:
        id_ = self._pick([h.id for h in self.judge.held.values() if isinstance(h.record, Permit)])
        if id_ is not None:
            self.do(self._reporting(self.judge.held[id_]))

    def _reporting(self, held: Any) -> commands.RecordUsage:
        random = self.random
        is_sent = random.random() < 0.75
        status = 200
        headers: list[tuple[str, str]] = []
        if is_sent:
            if random.random() < self.refuses:
                status = random.choice([429, 429, 503, 403])
            elif random.random() < 0.1:
                status = random.choice([0, 404, 500, 503])
            headers = self._headers(held.record.endpoint, status)
        return commands.RecordUsage(
            endpoint=held.record.endpoint,
            worker=held.worker,
            id=held.id,
            is_sent=is_sent,
            is_success=is_sent and status == 200,
            status_code=status if is_sent else 0,
            headers=tuple(headers),
        )

    def _headers(self, endpoint: str, status: int) -> list[tuple[str, str]]:
        random = self.random
        headers = []
        if status != 200 and random.random() < 0.6:
            headers.append(("Retry-After", random.choice(["0", "2", "7", "100000", "soon", self._date(3)])))
        if not self.is_learning or random.random() < 0.5:
            return headers
        windows = self.rules.limits[endpoint].windows
        length = random.choice(list(windows))
        limit = max(1, windows[length] + random.choice([0, 0, 0, 0, -1, -2, 1]))
        remaining = random.choice([0, limit, limit, limit - 1, random.randint(0, limit)])
        reset_s = random.choice([1, 3, length // SECOND, 100_000])
        if random.random() < 0.4:
            headers.append(("RateLimit-Policy", f'"x";q={limit};w={length // SECOND}'))
            headers.append(("RateLimit", f'"x";r={remaining};t={reset_s}'))
        elif random.random() < 0.3:
            headers.append(("RateLimit", random.choice(["limit=3, remaining=1, reset=2", "nonsense", "=;"])))
        else:
            headers.append(("x-rate-limit-limit", str(limit)))
            headers.append(("x-rate-limit-remaining", str(remaining)))
            headers.append(
                ("x-rate-limit-reset", random.choice([str(reset_s), str(self.now // SECOND + reset_s), ""]))
            )
        return headers

    def _date(self, ahead_s: int) -> str:
        return format_datetime(datetime.fromtimestamp(self.now // SECOND + ahead_s, UTC), usegmt=True)

    def release_bundle(self) -> None:
        id_ = self._pick(self.judge.bundles)
        if id_ is None:
            return
        held = [held for held in self.judge.held.values() if held.bundle == id_]
        reported = [h for h in held if isinstance(h.record, Permit) and self.random.random() < 0.8]
        locks = [h for h in held if isinstance(h.record, Lock) and self.random.random() < 0.3]
        self.do(
            commands.ReleaseBundle(
                id=id_,
                worker=self.judge.bundles[id_],
                outcome=self.random.choice([1, 2, 3]),
                outcomes={h.id: 2 for h in locks},
                usages=tuple(self._reporting(h) for h in reported),
            )
        )

    def renew_bundle(self) -> None:
        id_ = self._pick(self.judge.bundles)
        if id_ is not None:
            self.do(commands.RenewBundle(id=id_, worker=self.judge.bundles[id_]))

    def cancel(self) -> None:
        id_ = self._pick(self.judge.slots)
        if id_ is not None:
            self.do(commands.CancelSchedule(id=id_, worker=self.judge.slots[id_].worker))

    def open_session(self) -> None:
        worker = self.random.choice(_WORKERS)
        self.do(
            commands.OpenSession(
                worker=worker,
                session_id=self.random.choice([0, self.judge.sessions.get(worker, 7)]),
                worker_class=self.random.choice(["", "heavy"]),
                weight_milli=self.random.choice([0, 0, 500, 4_000]),
                ttl_ns=self.random.choice([0, 3 * SECOND, 20 * SECOND]),
            )
        )

    def keep_session(self) -> None:
        worker = self._pick(self.judge.sessions)
        if worker is not None:
            self.do(commands.KeepSession(worker=worker, id=self.judge.sessions[worker]))

    def close_session(self) -> None:
        worker = self._pick(self.judge.sessions)
        if worker is not None:
            self.do(commands.CloseSession(worker=worker, id=self.judge.sessions[worker]))

    def resolve(self) -> None:
        id_ = self._pick(self.judge.escalations)
        if id_ is not None:
            decision = self.random.choice(list(Decision))
            self.do(commands.ResolveEscalation(id=id_, decision=decision, decided_by="boss", reason="so"))

    def leave(self) -> None:
        id_ = self._pick(self.judge.waiting)
        if id_ is not None:
            self.do(commands.LeaveWait(id=id_))

    def come_back(self) -> None:
        id_ = self._pick([w.id for w in self.judge.waiting.values() if w.command.request_id])
        if id_ is not None:
            wait_ns = self.random.choice([0, 5 * SECOND, 60 * SECOND])
            self.do(_with(self.judge.waiting[id_].command, wait_ns=wait_ns))

    def return_grant(self) -> None:
        if self.unheard:
            id_, waiter = self.unheard.popitem()
            self.do(ReturnGrant(id=id_, waiter=waiter))

    def force(self) -> None:
        ids = [h.id for h in self.judge.held.values()] + [*self.judge.bundles, *self.judge.slots]
        id_ = self._pick(ids)
        if id_ is not None and self.random.random() < 0.5:
            self.do(commands.ForceRelease(id=id_, reason="because"))

    def update(self) -> None:
        random = self.random
        number = random.randint(2, 4)
        self.do(
            random.choice(
                [
                    commands.UpdateLimit(
                        endpoint="search",
                        windows={10 * SECOND: number, 30 * SECOND: random.randint(number, 8)},
                    ),
                    commands.UpdateLimit(endpoint="post", windows={8 * SECOND: random.randint(1, 4)}),
                    commands.UpdateLimit(endpoint="plain", windows={20 * SECOND: 5}),
                    commands.UpdatePool(name="conns", capacity=random.randint(1, 7)),
                    commands.UpdatePool(name="conns", is_unpinned=True),
                    commands.UpdatePool(name="gpus", capacity=random.randint(1, 3)),
                    commands.UpdatePool(name="slots", capacity=random.randint(2, 5)),
                    commands.UpdatePool(name="tweets", windows={10 * SECOND: number}),
                    commands.UpdatePool(name="mails", windows={12 * SECOND: number}),
                ]
            )
        )

    def use_the_dead(self) -> None:
        """A dead token, or somebody else's, renews and releases nothing."""
        id_ = self._pick(self.judge.dead)
        if id_ is not None:
            held = self.judge.dead[id_]
            what = self._releasing(held)
            if not isinstance(held.record, Permit) and self.random.random() < 0.5:
                what = self._renewing(held, 0)
            self.do(what)
        other = self._pick(self.judge.held)
        if other is not None and self.random.random() < 0.5:
            self.do(_with(self._releasing(self.judge.held[other]), worker="thief"))

    def look(self) -> None:
        """Look at everything there is to be seen; it changes nothing."""
        machine, now = self.machine, self.now
        before = machine.digest()
        for id_ in [*self.judge.waiting, 1]:
            self._look_at_place(machine.place(id_, now))
        for view in machine.limits(now):
            assert view.remaining >= 0
            for worker in _WORKERS:
                machine.allocation(view.name, worker, now)
            machine.allocations(view.name, now, after="", count=3)
        for pool in machine.pools(now):
            self._look_at_pool(pool)
        for item, kind in product("ab", ("", *_KINDS)):
            machine.item(item, kind, now)
        for type_, resource_id, units in _WANTED:
            self._look_at_availability(type_, resource_id, units)
        machine.sessions()
        machine.counts()
        machine.snapshot()
        self._check_unchanged(before)

    def _look_at_place(self, place: Place | None) -> None:
        if place is not None:
            assert place.position >= 1
            assert place.wait_ns is None or place.wait_ns >= 0, place

    def _look_at_pool(self, pool: PoolView) -> None:
        assert pool.free >= 0
        if not pool.windows:
            assert pool.used == self.judge.units(pool.name)
            assert pool.capacity == self.judge.capacities[pool.name]

    def _look_at_availability(self, type_: str, resource_id: str, units: int) -> None:
        priority = self.random.choice(PRIORITIES)
        wanted = commands.ReserveResource(
            type=type_, resource_id=resource_id, units=units, worker="w1", priority=priority
        )
        with suppress(CommandError):
            self.machine.availability(wanted, self.now)

    def hurry(self) -> None:
        """Do things before what is due is done: the daemon does that only so far in one step."""
        due_at = self.machine.next_deadline()
        if due_at is None:
            return
        self.now = max(self.now, due_at + self.random.choice([0, 1, SECOND, 6 * SECOND]))
        self.is_hasty = True
        slow = (self.claim, self.look, self.hurry, self.let_time_pass)
        hasty = [
            (deed, weight) for deed, weight in zip(self.deeds, self.weights, strict=True) if deed not in slow
        ]
        for _ in range(self.random.randint(1, 3)):
            self.random.choices([deed for deed, _ in hasty], [weight for _, weight in hasty])[0]()
        self.is_hasty = False
        self.advance(self.now)

    def let_time_pass(self) -> None:
        due_at = self.machine.next_deadline()
        random = self.random
        if due_at is not None and random.random() < 0.5:
            self.advance(max(self.now, due_at + random.choice([-1, 0, 0, 1])))
        else:
            by_ns = random.choice([MILLISECOND, 700 * MILLISECOND, 2 * SECOND, 4 * SECOND, 12 * SECOND])
            self.advance(self.now + by_ns, is_late=random.random() < 0.15)

    # -- doing and judging -----------------------------------------------------------------------------------

    def do(self, command: Any) -> Any:
        """Tell the machine, judge what it answers, and what follows; None: an error."""
        machine = self.machine
        before = machine.digest()
        self.segment.told.append((self.now, deepcopy(command)))
        try:
            outcome = machine.apply(command, self.now)
        except CommandError:
            self._check_unchanged(before)
            self.settled()
            return None
        self._note_outcome(command, outcome, before)
        if isinstance(command, ReturnGrant) and not self.is_hasty:
            # The time of a waiter that has its place back may be over by now.
            self._tick()
        self.settled()
        return outcome

    def _check_unchanged(self, before: bytes) -> None:
        # Else the state is as of another instant.
        assert self.is_hasty or self.machine.digest() == before, "no, and yet something has changed"

    def _note_outcome(self, command: Any, outcome: Any, before: bytes) -> None:
        if isinstance(outcome, Refused):
            resumed = [w for w in self.judge.waiting.values() if _same_request(w.command, command)]
            if resumed and self.machine.counts().waiters < len(self.judge.waiting):
                # A resumed wait that is of no use any more has ended.
                assert not outcome.position
                del self.judge.waiting[resumed[0].id]
            else:
                self._check_unchanged(before)
            assert not 0 < outcome.retry_at < self.now or self.is_hasty, outcome
            self.shed += outcome.reason == Reason.WOULD_TIME_OUT
            return
        _NOTE[type(outcome)](self, command, outcome)

    def _note_granted(self, command: Any, outcome: Granted) -> None:
        judge, id_ = self.judge, grant_id(outcome.grant)
        if outcome.is_repeat:
            assert id_ in judge.held or id_ in judge.bundles
            return
        if outcome.waiter is not None:
            self._grant(judge.waiting.pop(outcome.waiter.id).command, outcome.grant)
            self.unheard[id_] = outcome.waiter
            return
        if getattr(command, "booking_id", 0):
            del judge.slots[command.booking_id]
        self._grant(command, outcome.grant)

    def _grant(self, command: Any, grant: Any) -> None:
        self.grants += 1
        self.judge.grant(command, grant, self.now)

    def _note_queued(self, command: Any, outcome: Queued) -> None:
        times_out_at = self.now + command.wait_ns
        waiting = self.judge.waiting
        if outcome.is_resumed:
            waiting[outcome.id].times_out_at, waiting[outcome.id].away_until = times_out_at, 0
        else:
            self.judge.new_id(outcome.id)
            waiting[outcome.id] = Waiting(outcome.id, command, times_out_at)

    def _note_renewed(self, command: Any, outcome: Renewed) -> None:
        if isinstance(outcome.grant, Bundle):
            for held in list(self.judge.held.values()):
                if held.bundle == command.id and _is_renewable(held.record):
                    self.judge.renew(held.id, self.now)
            return
        self.judge.renew(grant_id(outcome.grant), self.now, command.ttl_ns)

    def _note_lock_released(self, command: Any, outcome: LockReleased) -> None:
        if not outcome.is_repeat:
            self.judge.end(command.token)
        else:
            assert command.token in self.judge.dead

    def _note_resource_released(self, command: Any, outcome: ResourceReleased) -> None:
        if outcome.reservation is None:
            assert command.id not in self.judge.held or self.judge.held[command.id].ends_at <= self.now
            return
        held = self.judge.end(command.id)
        if held.record.is_refilling:
            self.judge.settle(command.id, held.record.units - command.unused_units, self.now)

    def _note_usage(self, command: Any, outcome: UsageRecorded) -> None:
        if outcome.permit is not None:
            self._settle(command)
        self._hear(command)

    def _settle(self, command: Any) -> None:
        held = self.judge.end(command.id)
        self.judge.settle(command.id, held.record.count if command.is_sent else 0, self.now)

    def _hear(self, command: Any) -> None:
        said = dict(command.headers).get("Retry-After")
        retry_ns = None
        if said is not None and said != "soon":
            retry_ns = int(said) * SECOND if said.isdigit() else 2 * SECOND
        elif _is_none_left(command.headers):
            retry_ns = 0
        self.judge.report(command, retry_ns, self.now)

    def _note_bundle_released(self, command: Any, outcome: BundleReleased) -> None:
        held = [h for h in self.judge.held.values() if h.bundle == command.id and h.ends_at > self.now]
        usages = {usage.id: usage for usage in command.usages}
        assert (outcome.bundle is not None) == (command.id in self.judge.bundles)
        for each in held:
            if each.id in usages:
                self._settle(usages[each.id])
            elif isinstance(each.record, Reservation):
                self.judge.end(each.id)
                if each.record.is_refilling:
                    self.judge.settle(each.id, each.record.units, self.now)
            elif isinstance(each.record, Lock):
                self.judge.end(each.id)
        for usage in command.usages:
            self._hear(usage)
        self.judge.end_bundle(command.id)

    def _note_booked(self, command: Any, outcome: Booked) -> None:
        if outcome.is_repeat:
            assert outcome.booking.id in self.judge.slots
            return
        self.judge.new_id(outcome.booking.id)
        assert outcome.booking.execute_at >= self.now + command.not_before_ns
        self.judge.slots[outcome.booking.id] = outcome.booking

    def _note_cancelled(self, command: Any, outcome: BookingCancelled) -> None:
        if outcome.booking is not None:
            del self.judge.slots[command.id]

    def _note_left(self, command: Any, outcome: WaiterLeft) -> None:
        waiting = self.judge.waiting[command.id]
        assert outcome.is_away == bool(waiting.command.request_id)
        if not outcome.is_away:
            del self.judge.waiting[command.id]
        elif not waiting.away_until:
            waiting.away_until = self.now + self.rules.resume_grace_ns

    def _note_returned(self, command: Any, outcome: GrantReturned) -> None:
        judge = self.judge
        members = [h.id for h in judge.held.values() if command.id in (h.id, h.bundle)]
        assert (outcome.grant is not None) == bool(members)
        if outcome.grant is None:
            return
        for member in members:
            judge.undo(member)
        judge.end_bundle(command.id)
        waiter = command.waiter
        if waiter.command.request_id:
            away_until = self.now + self.rules.resume_grace_ns
            judge.waiting[waiter.id] = Waiting(waiter.id, waiter.command, waiter.times_out_at, away_until)

    def _note_forced(self, command: Any, outcome: Forced) -> None:
        judge = self.judge
        if command.id in judge.slots:
            del judge.slots[command.id]
            return
        for held in [h for h in judge.held.values() if command.id in (h.id, h.bundle)]:
            if not isinstance(held.record, Permit):
                judge.end(held.id)
        judge.end_bundle(command.id)

    def _note_updated(self, command: Any, outcome: Updated) -> None:
        judge = self.judge
        if isinstance(command, commands.UpdatePool):
            if command.capacity:
                judge.capacities[command.name] = command.capacity
            judge.limits.get(f"pool/{command.name}", {}).update(command.windows)
            return
        name = f"limit/{command.endpoint}"
        judge.limits[name].update(command.windows)
        for length in command.windows:
            judge.learned.pop((name, length), None)
        judge.shut[command.endpoint].until = min(judge.shut[command.endpoint].until, self.now)

    def _note_opened(self, command: Any, outcome: SessionOpened) -> None:
        id_ = outcome.session.id
        if outcome.is_resumed:
            assert self.judge.sessions[command.worker] == id_
        else:
            self.judge.new_id(id_)
        self._note_kept(command, outcome.kept)
        # What ran out just then is told as a notice, before the new one.
        self.judge.sessions[command.worker] = id_

    def _note_kept(self, command: Any, kept: SessionKept) -> None:
        for lease in kept.held:
            held = self.judge.held[lease]
            assert held.worker == command.worker
            assert _is_renewable(held.record)
            assert held.ends_at > self.now
            self.judge.renew(lease, self.now)
        ends = [self.judge.held[lease].ends_at for lease in kept.held]
        assert kept.first_end == min(ends, default=0)

    def _note_session_closed(self, command: Any, outcome: SessionClosed) -> None:
        del self.judge.sessions[command.worker]

    def _note_resolved(self, command: Any, outcome: EscalationResolved) -> None:
        assert outcome.escalation.id == command.id

    # -- notices ---------------------------------------------------------------------------------------------

    def settle_notices(self) -> None:
        for notice in self.machine.take_notices():
            _HEAR[type(notice)](self, notice)

    def _hear_wait_granted(self, notice: WaitGranted) -> None:
        waiting = self.judge.waiting.pop(notice.waiter.id)
        assert not waiting.away_until, "an away waiter was granted"
        self._grant(waiting.command, notice.grant)
        self.unheard[grant_id(notice.grant)] = notice.waiter

    def _hear_wait_refused(self, notice: WaitRefused) -> None:
        waiting = self.judge.waiting.pop(notice.waiter.id)
        if notice.refused.reason == Reason.WAIT_TIMEOUT:
            assert waiting.times_out_at <= self.now or 0 < waiting.away_until <= self.now

    def _hear_expired(self, notice: Expired) -> None:
        grant = notice.grant
        id_ = grant_id(grant)
        if isinstance(grant, Booking):
            assert self.judge.slots.pop(id_).claim_until <= self.now
        elif isinstance(grant, Bundle):
            assert not [h for h in self.judge.held.values() if h.bundle == id_]
            del self.judge.bundles[id_]
        else:
            assert self.judge.end(id_).ends_at <= self.now, "ended before its time"

    def _hear_bundle_ended(self, notice: BundleEnded) -> None:
        assert not [h for h in self.judge.held.values() if h.bundle == notice.bundle.id]
        self.judge.bundles.pop(notice.bundle.id)

    def _hear_preempted(self, notice: Preempted) -> None:
        held = self.judge.held[grant_id(notice.grant)]
        if held.preempt_at:
            assert held.ends_at == held.preempt_at <= self.now
            self.taken += 1
            self.judge.end(held.id)
        else:
            assert notice.at == self.now + self.rules.preempt_grace_ns
            held.preempt_at = notice.at
            held.ends_at = min(held.ends_at, notice.at)

    def _hear_escalation(self, notice: EscalationChanged) -> None:
        id_ = notice.escalation.id
        if notice.is_open:
            self.judge.last_id = max(self.judge.last_id, id_)
            assert id_ not in self.judge.escalations
            self.judge.escalations[id_] = notice.escalation.waiter_id
        else:
            del self.judge.escalations[id_]

    def _hear_gate(self, notice: GateChanged) -> None:
        self.probes += bool(notice.gate.probe_id)

    def _hear_learned(self, notice: LimitLearned) -> None:
        assert notice.configured == self.judge.limits[notice.subject][notice.window_ns]
        self.judge.learned[(notice.subject, notice.window_ns)] = notice.value

    def _hear_capacity(self, notice: CapacityChanged) -> None:
        assert notice.before == self.judge.capacities[notice.pool]
        self.judge.capacities[notice.pool] = notice.after

    def _hear_session_expired(self, notice: SessionExpired) -> None:
        worker = notice.session.worker
        if self.judge.sessions[worker] == notice.session.id:
            del self.judge.sessions[worker]

    def _hear_expiring(self, notice: LeasesExpiring) -> None:
        for lease in notice.ids:
            assert self.judge.held[lease].worker == notice.worker
            assert self.judge.held[lease].ends_at <= notice.session_end

    def _hear_given_back(self, notice: GivenBack) -> None:
        self.judge.end(grant_id(notice.grant))

    def _hear_alert(self, notice: Alert) -> None:
        assert notice.detail

    # -- time ------------------------------------------------------------------------------------------------

    def advance(self, to: int, *, is_late: bool = False) -> None:
        """Let time pass, and whatever is due be done: at its instant, or late."""
        while not is_late:
            due_at = self.machine.next_deadline()
            if due_at is None or due_at > to:
                break
            self.now = max(self.now, due_at)
            self._tick()
        self.now = to
        self._tick()
        for _ in range(200):
            due_at = self.machine.next_deadline()
            if due_at is None or due_at > self.now:
                break
            self._tick()
        else:
            raise AssertionError("something is due for ever")
        self.settled()

    def _tick(self) -> None:
        self.segment.told.append((self.now, None))
        self.machine.tick(self.now)
        self.settle_notices()

    def settled(self) -> None:
        """Check that everything is as it was told, that nothing is overdue and nobody is left behind."""
        self.settle_notices()
        judge, machine = self.judge, self.machine
        judge.charges = [charge for charge in judge.charges if charge.at > self.now - 61 * SECOND]
        counts = machine.counts()
        assert counts.locks == len(judge.of(Lock))
        assert counts.reservations == len(judge.of(Reservation))
        assert counts.permits == len(judge.of(Permit))
        assert counts.bookings == len(judge.slots)
        assert counts.bundles == len(judge.bundles)
        assert {h.bundle for h in judge.held.values()} - {0} == set(judge.bundles)
        assert counts.waiters == len(judge.waiting)
        assert counts.waiters_away == sum(bool(w.away_until) for w in judge.waiting.values())
        assert counts.sessions == len(judge.sessions)
        assert {e.id for e in machine.escalations()} == set(judge.escalations)
        assert set(judge.escalations.values()) <= set(judge.waiting)
        ends = {grant_id(lease): lease.expires_at for lease in self._leases()}
        assert ends == {h.id: h.ends_at for h in judge.held.values() if not isinstance(h.record, Permit)}
        if self.is_hasty:
            return
        assert not judge.overdue(self.now)
        self._check_nobody_is_left_behind()

    def _leases(self) -> list[Any]:
        return [*self.machine.locks(self.judge.held), *self.machine.reservations(self.judge.held)]

    def _check_nobody_is_left_behind(self) -> None:
        """Nobody is there who could be granted, or who waits at the head of what has become no use."""
        waits = self.machine._waits
        for waiter in waits.waiters.values():
            if waiter.key:
                blocked = waits._check_again(waiter, self.now)
                assert blocked is not None, f"left behind: {waiter.command}"

    # -- rows, recovery, replay ------------------------------------------------------------------------------

    def commit(self) -> None:
        puts, deletes = self.machine.take_changes()
        for table, rows in puts.items():
            self.store[table].update({row[: KEY_COLUMNS[table]]: row for row in rows})
        for table, keys in deletes.items():
            for key in keys:
                self.store[table].pop(key, None)

    def check_rows(self) -> None:
        """The store holds exactly what is live, but for what a restart has changed in memory only."""
        self.commit()
        snapshot = self.machine.snapshot()
        for table, rows in self.store.items():
            stored, live = sorted(rows.values()), snapshot[table]
            if table == Table.ENDED_REQUESTS:
                # Those that are to be forgotten may be used anew already.
                stored, live = self._remembered(stored), self._remembered(live)
            if table in (Table.ENGAGEMENTS, Table.CELLS, Table.FOREIGN_USAGES):
                assert set(live) <= set(stored)
            else:
                assert _lasting(table, stored) == _lasting(table, live), table

    def _remembered(self, ended: list[Row]) -> list[Row]:
        return [row for row in ended if int(row[2]) + self.rules.request_memory_ns > self.now]

    def restart(self, after_ns: int = 0) -> None:
        """Go on, a while later, with a machine that was recovered from the rows."""
        self.check_rows()
        self.check_replay()
        before, former = self.machine.snapshot(), self.machine
        tables = {table: [rows[key] for key in sorted(rows)] for table, rows in self.store.items()}
        # As the store gives them: the history in the order in which it was written.
        tables[Table.ENGAGEMENTS].sort(key=lambda row: (row[5], row[0]))
        was_quiet = not any(not w.away_until for w in self.judge.waiting.values())
        answers = self._answers(former) if was_quiet and not after_ns else None
        self.now += after_ns
        self.machine = Machine(self.rules)
        self._start(tables, former.last_id)
        if not after_ns:
            self._compare(before, self.machine.snapshot())
        if answers is not None:
            machine = Machine(self.rules)
            machine.recover(deepcopy(tables), self.machine.last_id, self.now)
            assert self._answers(machine) == answers
        self._note_restart()
        self.advance(self.now)

    def _compare(self, before: Tables, after: Tables) -> None:
        known = {w.id for w in self.judge.waiting.values() if w.command.request_id}
        before[Table.ESCALATIONS] = [row for row in before[Table.ESCALATIONS] if row[1] in known]
        hopeless = {w.id for w in self.judge.waiting.values() if self._is_hopeless(w.command)}
        before[Table.WAITERS] = [row for row in before[Table.WAITERS] if row[0] not in hopeless]
        before[Table.ESCALATIONS] = [row for row in before[Table.ESCALATIONS] if row[1] not in hopeless]
        # The store keeps more of the history than is in memory, and what others used until it is told anew.
        for tables in (before, after):
            tables[Table.ENDED_REQUESTS] = self._remembered(tables[Table.ENDED_REQUESTS])
            tables[Table.FOREIGN_USAGES] = [row for row in tables[Table.FOREIGN_USAGES] if row[3] > self.now]
        assert set(before[Table.ENGAGEMENTS]) <= set(after.pop(Table.ENGAGEMENTS))
        for table, rows in after.items():
            assert _lasting(table, before[table]) == _lasting(table, rows), table

    def _note_restart(self) -> None:
        judge = self.judge
        for waiting in list(judge.waiting.values()):
            if waiting.command.request_id and not self._is_hopeless(waiting.command):
                waiting.away_until = self.now + self.rules.resume_grace_ns
            else:
                del judge.waiting[waiting.id]
        judge.escalations = {id_: w for id_, w in judge.escalations.items() if w in judge.waiting}
        for held in judge.held.values():
            if _is_renewable(held.record):
                self._give_grace(held)
        self.unheard.clear()

    def _give_grace(self, held: Held) -> None:
        """A lease has at least its grace from the restart, and who is preempted has it anew."""
        held.ends_at = max(held.ends_at, self.now + self.rules.recovery_grace_ns)
        if held.preempt_at:
            held.preempt_at = max(held.preempt_at, self.now + self.rules.preempt_grace_ns)
            held.ends_at = min(held.ends_at, held.preempt_at)

    def _is_hopeless(self, command: Any) -> bool:
        """Whether it wants more than an operator, or upstream, allows by now."""
        component = self.machine._waits._components[type(command)]
        try:
            component.validate(command)
        except CommandError:
            return True
        return False

    def _answers(self, machine: Machine) -> list[Any]:
        """What a newcomer is answered where the past is known in full: no forecast, no pace."""
        asked: list[Any] = []
        for item in "ab":
            asked += [commands.RequestLock(item=item, kind=kind, worker="new") for kind in _KINDS]
        asked += [
            commands.ReserveResource(type=type_, resource_id=resource_id, units=units, worker="new")
            for type_, resource_id, units in _WANTED
        ]
        asked += [
            commands.TakePermit(endpoint=endpoint, worker="new", count=count)
            for endpoint, rule in self.rules.limits.items()
            for count in (1, 3)
            if not rule.forecast_max and not rule.is_even
        ]
        return [_answer(machine, command, self.now) for command in asked]

    def check_replay(self) -> None:
        """A fresh machine that is told the same, and that nobody has looked at, is the same."""
        segment = self.segment
        machine = Machine(self.rules)
        machine.recover(deepcopy(segment.tables), segment.last_id, segment.at)
        for now, command in segment.told:
            if command is None:
                machine.tick(now)
            else:
                try:
                    machine.apply(deepcopy(command), now)
                except CommandError:
                    continue
        assert machine.snapshot() == self.machine.snapshot()
        assert machine.digest() == self.machine.digest()

    # -- the end ---------------------------------------------------------------------------------------------

    def wind_up(self) -> None:
        """Let everybody give back what they have, until nobody waits; then nothing may be left of it all."""
        judge = self.judge
        self.unheard.clear()
        self.is_learning, self.refuses = False, 0.0
        patient_until = self.now + 2_000 * SECOND
        rounds = 0
        while judge.waiting and self.now < patient_until:
            rounds += 1
            for waiting in list(judge.waiting.values()):
                if waiting.command.request_id and waiting.id in judge.waiting:
                    self.do(_with(waiting.command, wait_ns=10_000 * SECOND))
            self._give_everything_back()
            if all(self._is_out_of_reach(id_) for id_ in judge.waiting):
                break
            self.advance(self.now + 5 * SECOND)
            assert rounds < 150, f"never served: {judge.waiting}"
        for id_ in list(judge.waiting):
            if id_ in judge.waiting:
                self.do(commands.LeaveWait(id=id_))
        self._give_everything_back()
        self.advance(self.now + 300 * SECOND)
        self._check_nothing_is_left()

    def _is_out_of_reach(self, id_: int) -> bool:
        key = self.machine._waits.waiters[id_].key
        return bool(key) and key[0] == "larger"

    def _give_everything_back(self) -> None:
        judge = self.judge
        for id_ in list(judge.held):
            held = judge.held.get(id_)
            if held is None:
                continue
            if isinstance(held.record, Permit):
                self.do(
                    commands.RecordUsage(
                        endpoint=held.record.endpoint,
                        worker=held.worker,
                        id=id_,
                        is_sent=True,
                        is_success=True,
                        status_code=200,
                    )
                )
            elif isinstance(held.record, Lock):
                self.do(commands.ReleaseLock(item=held.record.item, worker=held.worker, token=id_, outcome=2))
            else:
                self.do(commands.ReleaseResource(id=id_, worker=held.worker))
        for id_, slot in list(judge.slots.items()):
            self.do(commands.CancelSchedule(id=id_, worker=slot.worker))

    def _check_nothing_is_left(self) -> None:
        counts, machine = self.machine.counts(), self.machine
        assert (counts.locks, counts.reservations, counts.permits, counts.bookings) == (0, 0, 0, 0)
        assert (counts.bundles, counts.waiters, counts.sessions, counts.escalations) == (0, 0, 0, 0)
        assert machine._ledger.members == {}
        assert machine._ledger.live == {}
        assert machine._ledger.requests == {}
        assert machine._ledger.conditions.of == {}
        assert machine._waits.earmarks.of == {}
        assert machine._waits._wakes == {}
        assert (machine._queues.units, machine._queues.aside) == ({}, {})
        assert machine._queues._several == {}
        for pool in machine.pools(self.now):
            assert (pool.used, pool.queued) == (0, 0)
        for limit in machine.limits(self.now):
            assert (limit.queued, limit.bookings) == (0, 0)
            assert all(window.used == 0 for window in limit.windows)
        for item in "ab":
            for kind in _KINDS:
                view = machine.item(item, kind, self.now)
                assert (view.lock, view.delayed_until, view.waiters) == (None, 0, 0)
        heap = machine._ledger.deadlines._heap
        kinds = {type(entry[1]).__name__ for entry in heap if entry[1].scheduled == entry[0]}
        assert kinds <= {"Forecasts"}, kinds
        assert machine.digest() == machine.digest()


def _is_none_left(headers: Any) -> bool:
    """Whether headers say that nothing is left until a time, by the words of this monkey."""
    said = dict(headers)
    if said.get("x-rate-limit-remaining") == "0":
        return bool(said["x-rate-limit-reset"])
    return ";r=0;" in said.get("RateLimit", "")


def _lasting(table: Table, rows: list[Row]) -> list[Row]:
    """Return rows without what a restart gives more time."""
    cut = {
        Table.LOCKS: (5, 8),
        Table.RESERVATIONS: (7, 11),
        Table.SESSIONS: (6,),
        Table.ESCALATIONS: (9,),
    }.get(table, ())
    return [tuple(value for at, value in enumerate(row) if at not in cut) for row in rows]


def _answer(machine: Machine, command: Any, now: int) -> Any:
    """Return whether a command is granted, or why not; a grant goes back."""
    try:
        outcome = machine.apply(command, now)
    except CommandError as error:
        return (command, error.reason)
    if isinstance(outcome, Granted):
        pool = getattr(outcome.grant, "pool", "")
        machine.apply(ReturnGrant(id=grant_id(outcome.grant), waiter=None), now)
        return (command, "granted", pool)
    return (command, outcome.reason, outcome.holder, outcome.window_ns)


def _is_renewable(record: Any) -> bool:
    return isinstance(record, Lock) or (isinstance(record, Reservation) and not record.is_refilling)


def _with(command: Any, **changes: Any) -> Any:
    fields = {name: getattr(command, name) for name in command.__struct_fields__}
    return type(command)(**(fields | changes))


def _same_request(one: Any, other: Any) -> bool:
    request_id = getattr(other, "request_id", "")
    return bool(request_id) and (one.worker, one.request_id) == (other.worker, request_id)


_NOTE: dict[type, Any] = {
    Granted: EverythingMonkey._note_granted,
    Queued: EverythingMonkey._note_queued,
    Renewed: EverythingMonkey._note_renewed,
    LockReleased: EverythingMonkey._note_lock_released,
    ResourceReleased: EverythingMonkey._note_resource_released,
    UsageRecorded: EverythingMonkey._note_usage,
    BundleReleased: EverythingMonkey._note_bundle_released,
    Booked: EverythingMonkey._note_booked,
    BookingCancelled: EverythingMonkey._note_cancelled,
    WaiterLeft: EverythingMonkey._note_left,
    GrantReturned: EverythingMonkey._note_returned,
    Forced: EverythingMonkey._note_forced,
    Updated: EverythingMonkey._note_updated,
    SessionOpened: EverythingMonkey._note_opened,
    SessionKept: EverythingMonkey._note_kept,
    SessionClosed: EverythingMonkey._note_session_closed,
    EscalationResolved: EverythingMonkey._note_resolved,
}
_HEAR: dict[type, Any] = {
    WaitGranted: EverythingMonkey._hear_wait_granted,
    WaitRefused: EverythingMonkey._hear_wait_refused,
    Expired: EverythingMonkey._hear_expired,
    BundleEnded: EverythingMonkey._hear_bundle_ended,
    Preempted: EverythingMonkey._hear_preempted,
    EscalationChanged: EverythingMonkey._hear_escalation,
    GateChanged: EverythingMonkey._hear_gate,
    LimitLearned: EverythingMonkey._hear_learned,
    Alert: EverythingMonkey._hear_alert,
    CapacityChanged: EverythingMonkey._hear_capacity,
    SessionExpired: EverythingMonkey._hear_session_expired,
    LeasesExpiring: EverythingMonkey._hear_expiring,
    GivenBack: EverythingMonkey._hear_given_back,
}


def run(seed: int, steps: int) -> EverythingMonkey:
    """Let a monkey do `steps` things, with restarts in between for every second seed, and wind up."""
    monkey = EverythingMonkey(seed)
    restarts = seed % 2
    for _ in range(steps):
        monkey.step()
        if restarts and monkey.random.random() < 0.02:
            monkey.restart(monkey.random.choice([0, 0, 3, 40]) * SECOND)
    monkey.check_rows()
    monkey.check_replay()
    monkey.wind_up()
    monkey.check_rows()
    return monkey


if __name__ == "__main__":
    first, count, steps = (int(argument) for argument in sys.argv[1:4])
    began = time.monotonic()
    for seed in range(first, first + count):
        try:
            run(seed, steps)
        except Exception as error:  # noqa: BLE001  -- whatever it is, it is a find
            frames = traceback.extract_tb(error.__traceback__)
            where = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in frames[-4:][::-1])
            sys.stdout.write(f"{seed} {type(error).__name__}: {str(error)[:200]} @ {where}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{count} seeds in {time.monotonic() - began:.0f} s\n")
