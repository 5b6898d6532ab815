"""The run: virtual workers ask the real core for what a trace demands, in virtual time.

Owns: what a worker does. It asks for one step after the other, waits, works for a while once it has
everything, reports its calls, gives back what it holds and is done. It renews in time what it holds. Whoever
is refused at any step gives back what it has, sends nothing, and does not try again.
Rules: the same trace, rules and plan give the same log. Must not know: files, or what the log is good for.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Final

from msgspec import Struct

from coordd.core.errors import CommandError
from coordd.core.machine import Machine
from coordd.core.outcomes import Grant, Granted, Queued, Refused, WaitGranted, WaitRefused
from coordd.core.outcomes import Outcome as Answer
from coordd.core.queues import QueueKey
from coordd.core.records import Permit, Reservation
from coordd.core.rules import Rules
from coordd.planning.asking import Member, Terms, give_back, members, request, what_of
from coordd.planning.demands import Demand, PermitClaim, UnitsClaim, pool_of
from coordd.planning.fleet import Attempt, Fleet, attempts_of
from coordd.planning.log import Log, Use

__all__ = ["Plan", "Simulation"]

# As the engine does, so that the memory of what is to be stored stays bounded.
_EVENTS_PER_BATCH: Final = 256


class Plan(Struct, frozen=True, kw_only=True):
    """How a trace is run.

    `workers`: size of the fleet w1, w2, ... for demands that name none.
    `wait_ns`: how long each step waits at most; 0: it asks once.
    `service_ns`: how long a worker works with what it has got, where its demand does not say.
    `at_once`: demands that one worker is at at a time; 0: any number.
    `seed`: by which lot is drawn who asks first for what the whole fleet sees.
    """

    workers: int
    wait_ns: int
    service_ns: int
    at_once: int = 0
    seed: int = 0


class Simulation:
    """One run of a trace.

    Args: demands: in order of time, at least one; each possible under the rules.
    """

    def __init__(self, rules: Rules, demands: Sequence[Demand], plan: Plan) -> None:
        self._plan = plan
        self._rules = rules
        attempts = list(attempts_of(demands, plan.workers, plan.seed))
        begun_at = demands[0].at_ns
        self.log = Log(attempts=attempts, begun_at=begun_at, ended_at=begun_at)
        self._machine = Machine(rules)
        self._machine.recover({}, 0, begun_at)
        self._fleet = Fleet(plan.at_once)
        self._arrived = 0
        self._ended = 0
        # Whose worker has just got to them.
        self._ready: deque[Attempt] = deque()
        # (instant, tie, who is done then), a heap.
        self._done: list[tuple[int, int, Attempt]] = []
        self._ties = 0
        self._waiting: dict[int, Attempt] = {}
        self._grants: dict[Attempt, list[Member]] = {}
        self._depths = dict.fromkeys(sorted(_queue_keys(demands, rules)), 0)
        self.log.queues.update((key, []) for key in self._depths)
        self.log.uses.update((key, []) for key in self._depths)
        self._stops = False

    def stop(self) -> None:
        """Let `run` return soon, with the log as it then is; for a signal handler."""
        self._stops = True

    def run(self, on_progress: Callable[[int], None] | None = None) -> Log:
        """Run to the end, or until told to stop.

        Args: on_progress: told now and then how many attempts have ended.
        """
        events = 0
        while not self._stops and (now := self._next_at()) is not None:
            self._step(now)
            events += 1
            if events % _EVENTS_PER_BATCH == 0:
                self._machine.take_changes()
                if on_progress is not None:
                    on_progress(self._ended)
        self._close()
        return self.log

    # -- time ------------------------------------------------------------------------------------------------

    def _next_at(self) -> int | None:
        """Return the next instant at which anything happens; None if all have ended."""
        if self._ended == len(self.log.attempts):
            return None
        due = [self._done[0][0]] if self._done else []
        if self._arrived < len(self.log.attempts):
            due.append(self.log.attempts[self._arrived].demand.at_ns)
        deadline = self._machine.next_deadline()
        if deadline is not None:
            due.append(deadline)
        return max(min(due), self.log.ended_at)

    def _step(self, now: int) -> None:
        """Do one thing: first what the core has due, then what workers have done, then what is demanded."""
        self.log.ended_at = now
        deadline = self._machine.next_deadline()
        if deadline is not None and deadline <= now:
            self._machine.tick(now)
        elif self._done and self._done[0][0] <= now:
            self._finish(heappop(self._done)[2], now)
        else:
            attempt = self.log.attempts[self._arrived]
            self._arrived += 1
            if self._fleet.begins(attempt):
                self._ready.append(attempt)
        self._follow(now)
        self._measure(now)

    def _follow(self, now: int) -> None:
        """Pass on what the core has given notice of, let workers begin, and so on with what follows."""
        while True:
            for notice in self._machine.take_notices():
                if isinstance(notice, WaitGranted):
                    self._granted(self._waited(notice.waiter.id, now), notice.grant, now)
                elif isinstance(notice, WaitRefused):
                    self._refused(self._waited(notice.waiter.id, now), notice.refused, now)
            if not self._ready:
                return
            self._begin(self._ready.popleft(), now)

    def _measure(self, now: int) -> None:
        for key, depth in self._depths.items():
            length = self._machine.queue_length(key)
            if length != depth:
                self._depths[key] = length
                self.log.queues[key].append((now, length - depth))

    # -- a worker's doings -----------------------------------------------------------------------------------

    def _begin(self, attempt: Attempt, now: int) -> None:
        attempt.begun_at = now
        self._grants[attempt] = []
        self._ask(attempt, now)

    def _ask(self, attempt: Attempt, now: int) -> None:
        """Ask for the next step."""
        step = attempt.steps[attempt.step]
        try:
            answer: Answer = self._machine.apply(request(step, self._terms(attempt), self._rules), now)
        except CommandError as error:
            self._give_back(attempt, now, is_done=False)
            self._end(attempt, now, reason=error.reason, what=what_of(step, "", self._rules))
            return
        if isinstance(answer, Queued):
            self._waiting[answer.id] = attempt
            self.log.waiting.append((now, 1))
        elif isinstance(answer, Granted):
            self._granted(attempt, answer.grant, now)
        elif isinstance(answer, Refused):
            self._refused(attempt, answer, now)

    def _terms(self, attempt: Attempt) -> Terms:
        waits_left = len(attempt.steps) - attempt.step - 1
        return Terms(
            worker=attempt.worker,
            priority=attempt.demand.priority,
            wait_ns=self._plan.wait_ns,
            lease_ns=waits_left * self._plan.wait_ns + self._hold_ns(attempt),
        )

    def _waited(self, waiter_id: int, now: int) -> Attempt:
        attempt = self._waiting.pop(waiter_id)
        self.log.waiting.append((now, -1))
        return attempt

    def _granted(self, attempt: Attempt, grant: Grant, now: int) -> None:
        self._grants[attempt].extend(members(grant))
        attempt.step += 1
        if attempt.step < len(attempt.steps):
            self._ask(attempt, now)
            return
        attempt.granted_at = now
        self._ties += 1
        heappush(self._done, (now + self._hold_ns(attempt), self._ties, attempt))

    def _refused(self, attempt: Attempt, refused: Refused, now: int) -> None:
        self._give_back(attempt, now, is_done=False)
        what = what_of(attempt.steps[attempt.step], refused.subject, self._rules)
        self._end(attempt, now, reason=refused.reason.name, what=what)

    def _finish(self, attempt: Attempt, now: int) -> None:
        lost = self._give_back(attempt, now, is_done=True)
        self._end(attempt, now, reason=lost, what="")

    def _give_back(self, attempt: Attempt, now: int, *, is_done: bool) -> str:
        """Give back what an attempt holds, the last first; return why not, if something was lost."""
        lost = ""
        for grant in reversed(self._grants[attempt]):
            self._record(grant, now, is_used=is_done)
            try:
                self._machine.apply(give_back(grant, is_done=is_done, latency_ns=self._hold_ns(attempt)), now)
            except CommandError as error:
                lost = error.reason
        return lost

    def _end(self, attempt: Attempt, now: int, *, reason: str, what: str) -> None:
        del self._grants[attempt]
        attempt.ended_at = now
        attempt.reason, attempt.what = reason, what
        self._ended += 1
        following = self._fleet.next(attempt.worker)
        if following is not None:
            self._ready.append(following)

    def _hold_ns(self, attempt: Attempt) -> int:
        hold_ns = attempt.demand.hold_ns
        return self._plan.service_ns if hold_ns is None else hold_ns

    # -- the log ---------------------------------------------------------------------------------------------

    def _record(self, grant: Member, now: int, *, is_used: bool) -> None:
        if isinstance(grant, Permit):
            key, units = ("limit", grant.endpoint), grant.count
        elif isinstance(grant, Reservation) and grant.pool:
            key, units = ("pool", grant.pool), grant.units
        else:
            return
        self.log.uses[key].append(Use(grant.worker, units, grant.granted_at, now, is_used))

    def _close(self) -> None:
        """Take what is held and not given back into the log."""
        for grants in self._grants.values():
            for grant in grants:
                self._record(grant, self.log.ended_at, is_used=True)
        self.log.is_complete = self._ended == len(self.log.attempts)


def _queue_keys(demands: Iterable[Demand], rules: Rules) -> set[QueueKey]:
    """Return the queues of the limits and pools that a trace wants anything of."""
    claims = {claim for demand in demands for step in demand.steps for claim in step}
    keys: set[QueueKey] = {("limit", claim.endpoint) for claim in claims if isinstance(claim, PermitClaim)}
    for claim in claims:
        if isinstance(claim, UnitsClaim) and (pool := pool_of(rules.types[claim.type], claim.id)):
            keys |= {("pool", name) for name in (pool, rules.pools[pool].borrow_from) if name}
    return keys
