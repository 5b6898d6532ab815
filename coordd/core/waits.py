"""The one wait queue: who waits, who is away, and who gets what comes free.

Owns: the waiters, and the walk along a queue when something may have come free.
Rules: a waiter's key is fixed when it begins to wait; only the decision of an escalation changes it. It waits
in the queue of what blocks it first, and moves, key and all, when that changes. A waiter whose stream is gone
is *away*: in no queue, never granted, holding nobody up; its request id brings it back to its place within
`resume_grace`. The head of a queue that can't be served stops the queue.
Must not know: how anything is granted; the components do.
"""

from collections.abc import Callable
from typing import Any

from coordd.core.bundles import check_leases
from coordd.core.claims import Arrivals, Blocked, Component, Estimates
from coordd.core.commands import (
    AcquireBundle,
    LeaveWait,
    ReserveResource,
    ScheduleRequest,
    TakePermit,
    WaitableCommand,
)
from coordd.core.conflicts import Conflicts
from coordd.core.earmarks import Earmarks
from coordd.core.errors import CommandError, FailedPrecondition, ResourceExhausted
from coordd.core.escalations import Escalations
from coordd.core.ledger import Ledger, request_id_reused
from coordd.core.limits import SERVED_PER_CALL_MAX, WAITERS_MAX, WAITERS_PER_QUEUE_MAX
from coordd.core.outcomes import (
    Grant,
    Granted,
    Place,
    Queued,
    Reason,
    Refused,
    WaiterLeft,
    WaitGranted,
    WaitRefused,
    WaitVoided,
)
from coordd.core.queues import PUT_FIRST, QueueKey, Queues, Rank
from coordd.core.quotas import leases_of
from coordd.core.records import Bundle, EndedRequest, Permit, Session, Table, WaiterRow
from coordd.core.rules import Rules
from coordd.core.waiters import Waiter


class Wake:
    """The deadline of a queue whose head only waits for time to pass."""

    __slots__ = ("key", "scheduled")

    def __init__(self, key: QueueKey) -> None:
        self.key = key
        self.scheduled = 0


class Waits:
    """The waiters by id, and everything that makes one or ends one."""

    __slots__ = (
        "_arrivals",
        "_boost_ns",
        "_changed",
        "_components",
        "_conflicts",
        "_escalations",
        "_estimates",
        "_is_shedding",
        "_ledger",
        "_quality_boost_ns",
        "_queues",
        "_request_memory_ns",
        "_resume_grace_ns",
        "_wakes",
        "away",
        "counts",
        "earmarks",
        "waiters",
    )

    def __init__(
        self,
        rules: Rules,
        ledger: Ledger,
        queues: Queues,
        components: dict[type, Component[Any]],
        *,
        arrivals: dict[type, Arrivals[Any]],
        estimates: dict[type, Estimates[Any]],
        escalations: Escalations,
    ) -> None:
        self._ledger = ledger
        self._queues = queues
        self._components = components
        self._arrivals = arrivals
        self._estimates = estimates
        self._conflicts = Conflicts(rules)
        self._escalations = escalations
        self._boost_ns = rules.boost_ns
        self._quality_boost_ns = rules.quality_boost_ns
        self._resume_grace_ns = rules.resume_grace_ns
        self._request_memory_ns = rules.request_memory_ns
        self._is_shedding = rules.is_shedding
        self._changed = ledger.changes.of[Table.WAITERS]
        self._wakes: dict[QueueKey, Wake] = {}
        self.waiters: dict[int, Waiter] = {}
        self.away = 0
        # Of all of them, by what they ask for and their class.
        self.counts: dict[tuple[type, int], int] = {}
        self.earmarks = Earmarks(rules, ledger, queues)

    def rank(self, command: WaitableCommand | ScheduleRequest, now: int) -> Rank:
        """Return the rank of a newcomer: behind all who have the same key."""
        priority, quality = command.priority, command.quality
        order_ns = now - self._boost_ns[priority]
        if quality:
            order_ns -= int(quality * self._quality_boost_ns)
        return (order_ns, self._ledger.last_id + 1, priority, command.worker)

    def request(self, command: WaitableCommand, now: int) -> Granted | Refused | Queued:
        """Grant a command, or refuse it, or let it wait."""
        if command.request_id and (command.worker, command.request_id) in self._ledger.requests:
            earlier = self.earlier(command, now)
            if earlier is not None:
                return self._repeat(command, earlier, now)
        component = self._components[command.__class__]
        rank = self.rank(command, now)
        blocked = component.check(command, rank, now)
        if blocked is None:
            self._check_room(command)
            if command.__class__ in self._arrivals:
                self._arrivals[command.__class__].arrived(command, now)
            return Granted(grant=self._grant(command, now))
        if not command.wait_ns or not self._may_wait(command, blocked):
            return self._refusal(blocked, rank, now)
        shed = self._shed(command, rank, blocked, now) if self._is_shedding else None
        return shed or self._begin(command, rank, blocked, now)

    def claim(
        self, command: TakePermit, claim: Callable[[TakePermit, int], Permit | Refused], now: int
    ) -> Granted | Refused:
        """Grant a command that claims a booking, by `claim`.

        The same request id gives the same permit again.
        """
        earlier = self.earlier(command, now) if command.request_id else None
        if earlier is not None:
            return Granted(grant=self._same(command, earlier), is_repeat=True)
        answer = claim(command, now)
        if isinstance(answer, Refused):
            return answer
        if command.request_id:
            self._ledger.requests[(command.worker, command.request_id)] = answer
        return Granted(grant=answer)

    def earlier(self, command: WaitableCommand | ScheduleRequest, now: int) -> object | None:
        """Return what this request id was given before: a grant, a booking, a waiter; None if it is new.

        Raises: FailedPrecondition (REQUEST_ENDED).
        """
        earlier = self._ledger.requests.get((command.worker, command.request_id))
        if isinstance(earlier, EndedRequest):
            if earlier.at + self._request_memory_ns <= now:
                return None
            raise FailedPrecondition(
                "REQUEST_ENDED",
                f"What the request {command.request_id!r} was granted is over.",
                request_id=command.request_id,
            )
        return earlier

    def leave(self, command: LeaveWait, now: int) -> WaiterLeft:
        """Let a waiter whose stream is gone be away, or out if it can't come back."""
        waiter = self.waiters.get(command.id)
        if waiter is None or waiter.away_until:
            return WaiterLeft(is_away=waiter is not None)
        if not waiter.command.request_id:
            self._remove(waiter, now)
            return WaiterLeft(is_away=False)
        self._send_away(waiter, now)
        return WaiterLeft(is_away=True)

    def due(self, waiter: Waiter, now: int) -> None:
        """End a waiter whose time, or whose time to come back, is over; or escalate it; or postpone."""
        if not self.is_over(waiter, now):
            if not waiter.away_until and 0 < waiter.escalate_at <= now:
                self._escalate(waiter, now)
            self._ledger.deadlines.schedule(waiter, _due_at(waiter))
            return
        subject = self._subject(waiter)
        self._remove(waiter, now)
        self._refuse(waiter, Refused(reason=Reason.WAIT_TIMEOUT, subject=subject))

    def look_again(self, now: int) -> None:
        """End waits whose condition somebody has broken, at most `SERVED_PER_CALL_MAX` for each item.

        The rest end when their turn comes.
        """
        conditions = self._ledger.conditions
        for item in dict.fromkeys(conditions.broken):
            for waiter_id in list(conditions.of.get(item, ()))[:SERVED_PER_CALL_MAX]:
                waiter = self.waiters[waiter_id]
                blocked = self._check_again(waiter, now)
                if blocked is not None and not blocked.key:
                    self._remove(waiter, now)
                    self._refuse(waiter, blocked.refused(0))
        conditions.broken.clear()

    def dismiss(self, session: Session, now: int) -> None:
        """End every wait that a worker has begun since it opened its session, which it has closed.

        Cost: O(those).
        """
        for waiter_id in list(session.waits):
            waiter = self.waiters[waiter_id]
            subject = self._subject(waiter)
            self._remove(waiter, now)
            self._refuse(waiter, Refused(reason=Reason.SESSION_CLOSED, subject=subject))

    def is_over(self, waiter: Waiter, now: int) -> bool:
        """Whether a waiter's time, or its time to come back, is over."""
        return _ends_at(waiter) <= now

    def keys(self, waiter: Waiter) -> tuple[QueueKey, ...]:
        """Return every queue a waiter may have to wait in."""
        return self._components[waiter.command.__class__].keys(waiter.command)

    def put_first(self, waiter: Waiter, now: int) -> None:
        """Let a waiter go before all others but those who were put first before it; it may be away."""
        key = waiter.key
        if self.earmarks.of:
            self.earmarks.end(waiter)
        if key:
            self._exit(waiter, now)
        waiter.order_ns = PUT_FIRST + self._ledger.next_id()
        self._note(waiter)
        if key:
            first = Blocked(reason=Reason.QUEUED_AHEAD, subject="", key=key)
            self._enter(waiter, first, now)
            self._be_patient(waiter, now)
            self._ledger.freed.append(key)

    def deny(self, waiter: Waiter, now: int) -> None:
        """End a wait, because somebody has decided so."""
        subject = self._subject(waiter)
        self._remove(waiter, now)
        self._refuse(waiter, Refused(reason=Reason.ESCALATION_DENIED, subject=subject))

    def escalate_later(self, waiter: Waiter, now: int) -> None:
        """Let a wait go on, and be escalated again by the passing of time, if it is to be."""
        waiter.escalate_at = self._conflicts.escalate_again_at(waiter.command, now)
        self._ledger.deadlines.not_after(waiter, _due_at(waiter))
        self._note(waiter)

    def serve(self, key: QueueKey, now: int) -> bool:
        """Give what may have come free to those who wait for it, in order, until the head can't be served.

        At most `SERVED_PER_CALL_MAX` of them; say whether that was enough. Else the queue is due again.
        """
        for _ in range(SERVED_PER_CALL_MAX):
            heads = self._queues.heads(key, now)
            if not any(self._serve_head(key, self.waiters[rank[1]], now) for rank in heads):
                return True
        self._wake_at(key, now)
        return False

    def serve_later(self, key: QueueKey, now: int) -> None:
        """Serve a queue, if anybody waits in it, in one of the next steps: it is due at once."""
        if key in self._queues:
            self._wake_at(key, now)

    def place(self, id: int, now: int) -> Place | None:
        """Return where a waiter stands, or None if it waits no longer or is away."""
        waiter = self.waiters.get(id)
        if waiter is None or not waiter.key:
            return None
        component = self._components[waiter.command.__class__]
        blocked = self._blocked(waiter, now)
        # One that can never be granted any more waits for its refusal only; nobody can say how long.
        is_of_use = bool(blocked.key)
        return Place(
            position=self._queues.position(waiter.key, waiter.rank, now),
            wait_ns=component.estimate(waiter.command, waiter.rank, blocked, now) if is_of_use else None,
            blocked_by=blocked.refused(0),
            times_out_at=waiter.times_out_at,
        )

    def restore(self, waiter: Waiter, now: int) -> None:
        """Give a waiter its place back, away: its grant was taken back."""
        self._take_in(waiter, now)
        self._changed[waiter.id] = waiter

    def load(self, row: WaiterRow, now: int) -> None:
        """Take a waiter in as it was stored, away; drop one whose command can't be granted any longer."""
        waiter = Waiter.of(row)
        try:
            self._components[waiter.command.__class__].validate(waiter.command)
        except CommandError:
            self._changed[row.id] = None
        else:
            self._take_in(waiter, now)

    def take_over(self, waiter: Waiter) -> None:
        """Take in a waiter of former waits as it stands, in no queue yet; tell one that waits for nothing.

        Call `come_in` once everything else is taken in.
        """
        waiter.key, waiter.scheduled = (), 0
        try:
            self._components[waiter.command.__class__].validate(waiter.command)
        except CommandError as error:
            self._give_up(waiter, error)
            return
        self._hold(waiter)
        if waiter.command.request_id:
            self._ledger.requests[(waiter.command.worker, waiter.command.request_id)] = waiter
        self.away += bool(waiter.away_until)
        self._ledger.deadlines.schedule(waiter, _due_at(waiter))

    def come_in(self, waiter: Waiter, now: int) -> None:
        """Let a waiter that was taken over, and is there, have its place in the queue of what blocks it."""
        if waiter.id not in self.waiters or waiter.away_until:
            return
        blocked = self._check_again(waiter, now)
        if blocked is not None and not self._may_wait(waiter.command, blocked):
            self._forget(waiter)
            self._refuse(waiter, blocked.refused(0))
            return
        keys = self.keys(waiter)
        self._enter(waiter, blocked or Blocked(reason=Reason.QUEUED_AHEAD, subject="", key=keys[0]), now)
        self._be_patient(waiter, now)
        # What it waits for may be free by the new rules.
        self._ledger.freed.extend(keys)

    # --------------------------------------------------------------------------------------------------------

    def _give_up(self, waiter: Waiter, error: CommandError) -> None:
        if waiter.command.request_id:
            self._changed[waiter.id] = None
        self._ledger.notices.append(WaitVoided(waiter=waiter, error=error))

    def _take_in(self, waiter: Waiter, now: int) -> None:
        self._hold(waiter)
        self._ledger.requests[(waiter.command.worker, waiter.command.request_id)] = waiter
        self._send_away(waiter, now)

    def _hold(self, waiter: Waiter) -> None:
        self.waiters[waiter.id] = waiter
        self._count(waiter.command, 1)
        if self._ledger.sessions:
            self._ledger.begin_wait(waiter.id, waiter.command.worker)

    def _count(self, command: WaitableCommand, change: int) -> None:
        of = (command.__class__, command.priority)
        self.counts[of] = self.counts.get(of, 0) + change
        self._ledger.quotas.wanted += change * leases_of(command)

    def _grant(self, command: WaitableCommand, now: int) -> Grant:
        grant = self._components[command.__class__].take(command, now)
        if command.request_id:
            self._ledger.requests[(command.worker, command.request_id)] = grant
        return grant

    def _refusal(self, blocked: Blocked, rank: Rank, now: int) -> Refused:
        is_of_use = blocked.key
        return blocked.refused(self._queues.position(blocked.key, rank, now) if is_of_use else 0)

    def _shed(self, command: WaitableCommand, rank: Rank, blocked: Blocked, now: int) -> Refused | None:
        """Refuse a wait that would outlast its own timeout, or return None.

        Not one that somebody will be asked about in time: they may decide otherwise. `retry_at`: from then on
        a newcomer that waits as long would be served in time, if nothing else comes.
        """
        if 0 < self._conflicts.escalate_at(command, blocked.key, now) <= now + command.wait_ns:
            return None
        wait_ns = self._components[command.__class__].least_wait(command, rank, blocked, now)
        if wait_ns is None or wait_ns <= command.wait_ns:
            return None
        return Refused(
            reason=Reason.WOULD_TIME_OUT,
            subject=blocked.subject,
            retry_at=now + wait_ns - command.wait_ns,
            position=self._queues.position(blocked.key, rank, now),
        )

    def _repeat(self, command: WaitableCommand, earlier: object, now: int) -> Granted | Refused | Queued:
        """Answer a command whose request id is known: as it was answered before."""
        if isinstance(earlier, Waiter):
            self._same(command, earlier.command)
            return self._resume(earlier, command, now)
        grant = self._same(command, earlier)
        if isinstance(grant, Bundle):
            # Who has not heard yet that it was given would take what is left for all that it asked for.
            check_leases(grant, now)
        return Granted(grant=grant, is_repeat=True)

    def _same(self, command: WaitableCommand, earlier: Any) -> Any:
        """Check that `earlier` answers the same request, and return it."""
        if not self._components[command.__class__].is_for(command, earlier):
            raise request_id_reused(command.request_id)
        return earlier

    def _resume(self, waiter: Waiter, command: WaitableCommand, now: int) -> Granted | Refused | Queued:
        blocked = self._check_again(waiter, now)
        if blocked is None and waiter.away_until:
            self._come_back(waiter)
            self._forget(waiter)
            return Granted(grant=self._grant(waiter.command, now), waiter=waiter)
        if not command.wait_ns:
            return self._refusal(self._blocked(waiter, now), waiter.rank, now)
        if blocked is not None and waiter.away_until:
            if not self._may_wait(waiter.command, blocked):
                self._remove(waiter, now)
                return blocked.refused(0)
            self._come_back(waiter)
            self._enter(waiter, blocked, now)
            self._be_patient(waiter, now)
        waiter.times_out_at = now + command.wait_ns
        self._ledger.deadlines.not_after(waiter, _due_at(waiter))
        self._changed[waiter.id] = waiter
        return Queued(id=waiter.id, is_resumed=True)

    def _begin(self, command: WaitableCommand, rank: Rank, blocked: Blocked, now: int) -> Queued:
        full = self._queues.length(blocked.key) >= WAITERS_PER_QUEUE_MAX
        if full or len(self.waiters) >= WAITERS_MAX:
            raise ResourceExhausted(
                "QUEUE_FULL", f"Too many wait for {blocked.subject} already.", subject=blocked.subject
            )
        self._ledger.quotas.check_waiters(len(self.waiters) + 1)
        self._check_room(command)
        waiter = Waiter(self._ledger.next_id(), command, rank[0], now, now + command.wait_ns)
        waiter.escalate_at = self._conflicts.escalate_at(command, blocked.key, now)
        self._hold(waiter)
        if command.request_id:
            self._ledger.requests[(command.worker, command.request_id)] = waiter
            self._changed[waiter.id] = waiter
        self._enter(waiter, blocked, now)
        if command.__class__ in self._arrivals:
            self._arrivals[command.__class__].arrived(command, now)
        if command.__class__ in self._estimates:
            self._promise(waiter, blocked, now)
        self._be_patient(waiter, now)
        if waiter.escalate_at == now:
            self._escalate(waiter, now)
        self._ledger.deadlines.schedule(waiter, _due_at(waiter))
        return Queued(id=waiter.id)

    def _check_room(self, command: WaitableCommand) -> None:
        """Check that what a command asks for may be held. Raises: ResourceExhausted."""
        self._ledger.quotas.check_leases(command)
        if self._ledger.sessions:
            self._ledger.check_session(command.worker, leases_of(command))

    def _may_wait(self, command: WaitableCommand, blocked: Blocked) -> bool:
        """Whether to wait for what blocks is of use, and is wanted. Who waits may meet a holder, too."""
        return bool(blocked.key) and not self._conflicts.is_denied(command, blocked.key)

    def _escalate(self, waiter: Waiter, now: int) -> None:
        """Ask somebody about a waiter that is in a queue."""
        is_open = self._escalations.open(waiter, self._subject(waiter), now)
        # Where too many are open, it is tried again, if the passing of time escalates it at all.
        waiter.escalate_at = 0 if is_open else self._conflicts.escalate_again_at(waiter.command, now)
        self._note(waiter)

    def _note(self, waiter: Waiter) -> None:
        if waiter.command.request_id:
            self._changed[waiter.id] = waiter

    def _promise(self, waiter: Waiter, blocked: Blocked, now: int) -> None:
        """Keep what a waiter is told of its wait, to see later how good that was."""
        command = waiter.command
        wait_ns = self._components[command.__class__].estimate(command, waiter.rank, blocked, now)
        waiter.promised_at = 0 if wait_ns is None else now + wait_ns

    def _serve_head(self, key: QueueKey, waiter: Waiter, now: int) -> bool:
        """Serve the head of a queue; say whether the next one may be looked at."""
        blocked = self._check_again(waiter, now)
        if blocked is not None and blocked.key == key:
            self._wake_at(key, blocked.frees_at)
            self._wake_at(key, self._queues.changes_at(key, now))
            return False
        self._exit(waiter, now)
        if blocked is not None and self._may_wait(waiter.command, blocked):
            self._enter(waiter, blocked, now)
            return self._lets_pass(waiter, key)
        self._forget(waiter)
        if blocked is not None:
            self._refuse(waiter, blocked.refused(0))
        else:
            if waiter.promised_at:
                self._estimates[waiter.command.__class__].served(waiter.command, waiter.promised_at, now)
            grant = self._grant(waiter.command, now)
            self._ledger.notices.append(WaitGranted(waiter=waiter, grant=grant))
        return True

    def _lets_pass(self, waiter: Waiter, left: QueueKey) -> bool:
        """Whether what a waiter that has moved has `left` is free for the next one.

        It is if it has moved back to something it wants before that. If it has moved on instead, what it left
        is meant for it: nobody behind it could do more than move on after it. Not so where rank alone does
        not say who is next, for there they may go before it. And not so a bundle: it keeps nothing from
        anybody, until what it wants is set aside.
        """
        if isinstance(waiter.command, AcquireBundle) or waiter.key in self._queues.orders:
            return True
        keys = self.keys(waiter)
        return keys.index(waiter.key) < keys.index(left)

    def _check_again(self, waiter: Waiter, now: int) -> Blocked | None:
        command = waiter.command
        try:
            return self._components[command.__class__].check(command, waiter.rank, now)
        except CommandError as error:
            # An operator has lowered a limit or a capacity below what this waiter wants: it can never be
            # granted.
            is_of_windows = error.reason == "PERMITS_ABOVE_LIMIT" and not isinstance(command, ReserveResource)
            reason = Reason.WINDOW_FULL if is_of_windows else Reason.UNITS_TAKEN
            return Blocked(
                reason=reason, subject=error.metadata.get("pool") or error.metadata.get("name", "")
            )

    def _blocked(self, waiter: Waiter, now: int) -> Blocked:
        blocked = self._check_again(waiter, now)
        if blocked is not None:
            return blocked
        # Free, but not served yet: its turn comes within this or the next few steps of the machine.
        return Blocked(reason=Reason.QUEUED_AHEAD, subject=self._subject(waiter), key=waiter.key)

    def _enter(self, waiter: Waiter, blocked: Blocked, now: int) -> None:
        waiter.key = blocked.key
        self._queues.add(blocked.key, waiter.rank, self._units(waiter))
        if self.earmarks.of:
            self.earmarks.move(waiter)
        heads = self._queues.heads(blocked.key, now)
        if waiter.rank in heads:
            self._wake_at(blocked.key, blocked.frees_at)
        elif heads and waiter.rank < max(heads):
            # By its rank its class may go before others now, and others of its class before it.
            self._ledger.freed.append(blocked.key)
        self._wake_at(blocked.key, self._queues.changes_at(blocked.key, now))

    def _exit(self, waiter: Waiter, now: int) -> None:
        self._queues.remove(waiter.key, waiter.rank, self._units(waiter), now)
        if waiter.key not in self._queues:
            wake = self._wakes.pop(waiter.key, None)
            if wake is not None:
                self._ledger.deadlines.cancel(wake)
        waiter.key = ()

    def _units(self, waiter: Waiter) -> int:
        return self._components[waiter.command.__class__].units(waiter.command, waiter.key)

    def _be_patient(self, waiter: Waiter, now: int) -> None:
        """Let one that wants several things have them set aside when its patience runs out."""
        if isinstance(waiter.command, AcquireBundle):
            bundles = self._components[AcquireBundle]
            command = waiter.command
            wants = {key: bundles.units(command, key) for key in bundles.keys(command)}
            self.earmarks.begin(waiter, wants, now)
            self._ledger.conditions.begin(waiter, command)

    def _wake_at(self, key: QueueKey, at: int) -> None:
        if at:
            wake = self._wakes.get(key)
            if wake is None:
                wake = self._wakes[key] = Wake(key)
            self._ledger.deadlines.not_after(wake, at)

    def _remove(self, waiter: Waiter, now: int) -> None:
        """End a wait ungranted; whoever it held up may be served."""
        if waiter.away_until:
            self._come_back(waiter)
        else:
            self._leave_queue(waiter, now)
        self._forget(waiter)
        self._ledger.forget_waiting(waiter.command.worker, waiter.command.request_id)

    def _send_away(self, waiter: Waiter, now: int) -> None:
        if waiter.key:
            self._leave_queue(waiter, now)
        self.earmarks.end(waiter)
        self._ledger.conditions.end(waiter)
        self.away += 1
        waiter.promised_at = 0
        waiter.away_until = now + self._resume_grace_ns
        self._ledger.deadlines.not_after(waiter, _due_at(waiter))

    def _come_back(self, waiter: Waiter) -> None:
        self.away -= 1
        waiter.away_until = 0

    def _leave_queue(self, waiter: Waiter, now: int) -> None:
        """Take a waiter out ungranted; what it may have held up is to be served.

        That is its own queue if others are next there now, and what else it wants: others may be meant to
        wait for it. Where classes take turns, others may be next also when it was not.
        """
        key, heads = waiter.key, self._queues.heads(waiter.key, now)
        self._exit(waiter, now)
        is_other_next = self._queues.heads(key, now) != heads
        self._ledger.freed.extend(other for other in self.keys(waiter) if other != key or is_other_next)

    def _subject(self, waiter: Waiter) -> str:
        """Return the name of what it waits for, or while it is away, of what it wants first."""
        key = waiter.key or self.keys(waiter)[0]
        # Keys are the sort of a thing and its names; a lock's scope may be an item and a kind.
        return "/".join(key[1:]).partition("\0")[0]

    def _forget(self, waiter: Waiter) -> None:
        del self.waiters[waiter.id]
        self._count(waiter.command, -1)
        if self._ledger.sessions:
            self._ledger.end_wait(waiter.id, waiter.command.worker)
        self._ledger.deadlines.cancel(waiter)
        if self._escalations.of:
            self._escalations.end(waiter.id)
        if self.earmarks.of:
            self.earmarks.end(waiter)
            self._ledger.conditions.end(waiter)
        if waiter.command.request_id:
            self._changed[waiter.id] = None

    def _refuse(self, waiter: Waiter, refused: Refused) -> None:
        self._ledger.forget_waiting(waiter.command.worker, waiter.command.request_id)
        self._ledger.notices.append(WaitRefused(waiter=waiter, refused=refused))


def _ends_at(waiter: Waiter) -> int:
    return min(waiter.times_out_at, waiter.away_until) if waiter.away_until else waiter.times_out_at


def _due_at(waiter: Waiter) -> int:
    # One that is away is not escalated before it comes back: nobody is held up for it.
    is_to_escalate = waiter.escalate_at and not waiter.away_until
    return min(_ends_at(waiter), waiter.escalate_at) if is_to_escalate else _ends_at(waiter)
