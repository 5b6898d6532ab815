"""The one writer: takes commands, asks the machine, commits in groups, then answers.

Owns: the clock, the machine, who is to be told what once it is committed, and the timer for
what falls due. A request's way: `submit` stamps `now` and asks the machine, at once and alone, since nothing
here yields in between; what changed joins the open batch; while one batch commits the next one fills; when
its batch is durable, the request is answered and waiters are told. An answer that changed nothing waits too
for whatever it may have seen: nothing is ever told that a crash could take back. If a commit fails, nothing
of it is told, every question is refused from then on, and `failure()` returns why; so it is after a bug.
Must not know: SQL, grpc, wire formats.
"""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Final, TypeVar, cast

from msgspec import Struct

from coordd.core.commands import (
    AcquireBundle,
    LeaveWait,
    OpenSession,
    RequestLock,
    ReserveResource,
    ScheduleRequest,
    TakePermit,
    WaitableCommand,
)
from coordd.core.errors import CommandError, ResourceExhausted
from coordd.core.limits import MILLISECOND, SECOND, STREAMS_MAX, WATCHERS_MAX
from coordd.core.machine import Command, Machine, history_needed
from coordd.core.outcomes import (
    Forced,
    Grant,
    Granted,
    Notice,
    Outcome,
    Queued,
    Reason,
    Refused,
    SessionOpened,
    WaitGranted,
    WaitRefused,
    WaitVoided,
    grant_id,
)
from coordd.core.rules import Rules
from coordd.core.waiters import ReturnGrant, Waiter
from coordd.engine.clock import Clock
from coordd.engine.commits import Commits
from coordd.engine.errors import Draining, StoreFailed
from coordd.engine.observer import CommitObserver, Observer
from coordd.engine.session_routes import SessionRoutes
from coordd.engine.session_stream import SessionStream
from coordd.engine.wait import Wait
from coordd.engine.watch import DrainChanged, Event, Watch
from coordd.store.protocol import CommitFailed, Store

View = TypeVar("View")
Result = TypeVar("Result")

_STOPPING: Final = "the daemon is stopping"
_GRANTING: Final = (RequestLock, ReserveResource, TakePermit, ScheduleRequest, AcquireBundle)
# How often waiters are told where they stand, and for how long at a time: the rest take their turn, so that
# telling places costs 4 % of a core at most, however many wait.
_PLACES_INTERVAL_S: Final = 0.25
_PLACES_BUDGET_NS: Final = 10 * MILLISECOND


class EngineStatus(Struct, frozen=True, kw_only=True):
    """How the engine fares. Times in ns; `commit_ns_mean` is None before the first commit."""

    uptime_ns: int
    commits: int
    commands: int
    commit_ns_mean: int | None


class Engine:
    """The writer over one store. `start` before anything else, `stop` at last.

    Args: observer, commit_observer: they see what is decided, and each commit.
    """

    def __init__(
        self,
        rules: Rules,
        store: Store,
        *,
        history_retention_ns: int = 0,
        clock: Clock | None = None,
        observer: Observer | None = None,
        commit_observer: CommitObserver | None = None,
    ) -> None:
        self.store = store
        self._observer = observer
        # Wait streams by waiter id, and watchers in the order in which they came; theirs to leave.
        self.waits: dict[int, Wait] = {}
        self.watchers: dict[Watch, None] = {}
        self.sessions = SessionRoutes()
        # Grants to waits of which nobody is known to have been told, by id: only these may go back.
        self._untold: set[int] = set()
        self._machine = Machine(rules)
        self._clock = clock or Clock()
        self._commits = Commits(
            self._machine,
            store,
            self._clock,
            history_retention_ns=history_retention_ns,
            tell=self._tell,
            on_room=self._on_room,
            on_failure=self._on_failure,
            observer=commit_observer,
        )
        self._started_at = 0
        self._commands = 0
        # Steps of the machine: whatever is shown of it can't have changed while this has not.
        self._steps = 0
        # Why an operator lets nothing new be granted, in a sentence; empty: it may be.
        self._draining = ""
        self._is_watchable = True
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        # Not any more once the engine stops: whatever falls due then is found by the next start.
        self._has_timer = True
        # Set while nothing is decided: other rules are about to hold. What can't wait is decided after that.
        self._held: asyncio.Event | None = None
        self._after_held: list[LeaveWait | ReturnGrant] = []

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store and take everything in. Raises: Unusable."""
        opened = await self.store.open(self._machine.history_ns)
        self._started_at = self._clock.start(opened.instant)
        self._commits.start(opened.sequence, self._started_at)
        self._machine.recover(opened.tables, opened.last_id, self._started_at)
        self._after_step(self._started_at)
        self._tasks = [
            asyncio.create_task(self._commits.run()),
            asyncio.create_task(self._tell_places_forever()),
        ]

    async def stop(self) -> None:
        """End every wait and watch, commit what is open, close the store."""
        self.wind_down()
        self.end_watches()
        self._has_timer = False
        if self._timer is not None:
            self._timer.cancel()
        self._commits.stop()
        if self._tasks:
            committer, teller = self._tasks
            await committer
            teller.cancel()
            await asyncio.gather(teller, return_exceptions=True)
        await self.store.close()

    async def failure(self) -> CommitFailed:
        """Wait until a commit fails or a bug shows (Defect), and return why."""
        return await self._commits.failure()

    @property
    def has_failed(self) -> bool:
        """Whether nothing is committed any more: a commit has failed, or a bug has shown."""
        return self._commits.error is not None

    @property
    def is_draining(self) -> bool:
        """Whether nothing new is granted."""
        return self._is_stopping or bool(self._draining)

    def drain(self, reason: str) -> None:
        """Grant nothing new and end every wait; renewals, releases and reports go on."""
        self._draining = f"the daemon is draining: {reason}" if reason else "the daemon is draining"
        self._fail_waits(Draining(self._draining))
        self._note_drain(reason)

    def undrain(self) -> None:
        """Grant again."""
        if self._draining:
            self._draining = ""
            self._note_drain("")

    def wind_down(self) -> None:
        """Do as when draining, for good and whatever an operator says: the daemon is about to stop."""
        self._is_stopping = True
        if self._commits.error is None:
            self._fail_waits(Draining(_STOPPING))

    def end_watches(self) -> None:
        """End every watch and session, once it has shown what has happened so far; begin none.

        `wind_down` first.
        """
        for watch in self.watchers:
            watch.fail(Draining(_STOPPING))
        self.sessions.fail(Draining(_STOPPING))
        self._is_watchable = False

    async def reload(self, rules: Rules, *, history_retention_ns: int) -> None:
        """Go on under other rules, as after a restart with them, but that nobody was away meanwhile.

        Questions that come while it lasts are answered after it. Returns once all that it changes is durable.
        Cost: O(everything). Raises: EngineError, StoreError; then the old rules hold, or it has failed.
        """
        await self._hold()
        try:
            stored = await self.store.recent(history_needed(rules))
            self._commits.check()
            now = self._clock.now()
            self._step(lambda: self._machine.reload(rules, stored, now), now)
            self._commits.keep_history(history_retention_ns)
        finally:
            self._go_on()
        await self._commits.durable()

    async def _hold(self) -> None:
        """Decide nothing any more, until `_go_on`; return once all that was decided is durable."""
        while self._held is not None:
            await self._held.wait()
        self._held = asyncio.Event()
        try:
            await self._commits.durable()
        except BaseException:
            self._go_on()
            raise

    def _go_on(self) -> None:
        held, self._held = self._held, None
        after, self._after_held = self._after_held, []
        if held is not None:
            held.set()
        for command in after:
            self._decide_unanswered(command)
        self._arm(self._clock.now())

    # -- questions -------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Return the daemon's time, in ns since the epoch."""
        return self._clock.now()

    async def submit(self, command: Command) -> Outcome:
        """Decide a command and answer once that is durable. Raises: CommandError, EngineError."""
        asked_at = self._clock.now() if self._observer is not None else 0
        await self._admit(command)
        batch = 0
        try:
            outcome = self._decide(command)
            self._keep_repeated(outcome)
        finally:
            batch = await self._commits.durable()
        if asked_at:
            self._show_answer(command, outcome, asked_at, batch)
        return outcome

    async def read(self, view: Callable[[Machine, int], View]) -> View:
        """Answer from the machine and the instant, once all that it shows is durable.

        Raises: as `view`, EngineError.
        """
        # What is due is done before anything is shown, and needs room.
        await self._room()
        now = self._clock.now()
        try:
            self._tick(now)
            return view(self._machine, now)
        finally:
            await self._commits.durable()

    def look(self, view: Callable[[Machine, int], View]) -> View:
        """Show the machine at once, durable or not: for those who measure, to whom nothing is promised.

        Why not `read`: that waits for the disk, and a slow disk is what one most wants to see.
        """
        shown = view(self._machine, self._clock.now())
        # A look may have found that charges have left their window.
        self._commits.wake()
        return shown

    def wait(self, command: WaitableCommand) -> Wait:
        """Return a wait for a command with `wait_ns` above 0."""
        return Wait(self, command)

    def watch(self) -> Watch:
        """Return a watch over everything that happens while it is entered.

        Raises: ResourceExhausted (TOO_MANY_WATCHERS), EngineError.
        """
        self._commits.check()
        if not self._is_watchable:
            raise Draining(_STOPPING)
        if len(self.watchers) >= WATCHERS_MAX:
            raise ResourceExhausted("TOO_MANY_WATCHERS", f"{WATCHERS_MAX} watch already.", limit=WATCHERS_MAX)
        return Watch(self.watchers)

    def connect(self, command: OpenSession, *, is_taking_over: bool = False) -> SessionStream:
        """Return the stream of a worker's session.

        It is open, or resumed, when it is entered. Taking over, it ends an earlier stream of another session.
        """
        return SessionStream(self, command, is_taking_over=is_taking_over)

    def status(self) -> EngineStatus:
        """Return how the engine fares."""
        return EngineStatus(
            uptime_ns=self._clock.now() - self._started_at,
            commits=self._commits.count,
            commands=self._commands,
            commit_ns_mean=self._commits.total_ns // self._commits.count if self._commits.count else None,
        )

    # -- the waits' end --------------------------------------------------------------------------------------

    async def begin_wait(self, wait: Wait, command: WaitableCommand) -> None:
        """Decide a wait's command; `wait` is told what comes of it, and may read it once this has returned.

        Raises: CommandError, EngineError.
        """
        asked_at = self._clock.now() if self._observer is not None else 0
        await self._admit(command)
        if len(self.waits) >= STREAMS_MAX:
            raise ResourceExhausted(
                "TOO_MANY_STREAMS", f"{STREAMS_MAX} wait on streams already.", limit=STREAMS_MAX
            )
        batch = 0
        try:
            outcome = cast("Granted | Refused | Queued", self._decide(command))
            if isinstance(outcome, Queued):
                self._enter(wait, outcome.id)
            else:
                # Now, not after the commit: a stream that goes meanwhile has to know what it leaves.
                self._note_untold(outcome)
                wait.finish(outcome, outcome.waiter if isinstance(outcome, Granted) else None)
        finally:
            batch = await self._commits.durable()
        if asked_at:
            self._show_answer(command, outcome, asked_at, batch)

    def end_wait(self, wait: Wait) -> None:
        """Let a wait's waiter go: its stream has ended."""
        if self.waits.get(wait.id) is wait:
            del self.waits[wait.id]
            self._decide_unanswered(LeaveWait(id=wait.id))

    def return_grant(self, grant: Grant, waiter: Waiter | None) -> None:
        """Take back a grant that its stream could not be told, unless somebody else was told."""
        if grant_id(grant) in self._untold:
            self._untold.discard(grant_id(grant))
            self._decide_unanswered(ReturnGrant(id=grant_id(grant), waiter=waiter))

    def keep_grant(self, grant: Grant) -> None:
        """Let a grant stay: its stream, or another, was told."""
        self._untold.discard(grant_id(grant))

    # -- the sessions' end -----------------------------------------------------------------------------------

    async def begin_session(
        self, stream: SessionStream, command: OpenSession, *, is_taking_over: bool
    ) -> SessionOpened:
        """Open or resume a session for `stream`, which is told all that concerns it from then on.

        Raises: CommandError, EngineError.
        """
        asked_at = self._clock.now() if self._observer is not None else 0
        await self._admit(command)
        if self._is_stopping:
            raise Draining(_STOPPING)
        batch = 0
        try:
            self.sessions.check(command, is_taking_over=is_taking_over)
            opened = cast("SessionOpened", self._decide(command))
            self.sessions.add(stream, opened)
        finally:
            batch = await self._durable_for(stream)
        if asked_at:
            self._show_answer(command, opened, asked_at, batch)
        return opened

    async def _durable_for(self, stream: SessionStream) -> int:
        try:
            return await self._commits.durable()
        except BaseException:
            # It is never entered, so nobody else would take it out.
            self.sessions.remove(stream)
            raise

    def end_session(self, stream: SessionStream) -> None:
        """Let a stream go; its session lives on."""
        self.sessions.remove(stream)

    # --------------------------------------------------------------------------------------------------------

    def _show_answer(self, command: Command, outcome: Outcome, asked_at: int, batch: int) -> None:
        if self._observer is not None:
            self._observer.answered(command, outcome, asked_at=asked_at, at=self._clock.now(), batch=batch)

    def _note_drain(self, reason: str) -> None:
        outcome = DrainChanged(is_draining=bool(self._draining), reason=reason)
        self._commits.note(Event(at=self._clock.now(), command=None, outcome=outcome))
        self._commits.wake()

    def _note_untold(self, outcome: Granted | Refused) -> None:
        if isinstance(outcome, Granted) and not outcome.is_repeat:
            self._untold.add(grant_id(outcome.grant))
        else:
            self._keep_repeated(outcome)

    def _keep_repeated(self, outcome: Outcome) -> None:
        # The client has asked again, on another connection perhaps, before the first stream was told or found
        # to be gone. Whatever becomes of that one, this answer says that the grant is the client's.
        if isinstance(outcome, Granted) and outcome.is_repeat:
            self.keep_grant(outcome.grant)

    def _decide_unanswered(self, command: LeaveWait | ReturnGrant) -> None:
        """Decide a command whose answer nobody waits for, and which can't wait for room."""
        if self._held is not None:
            self._after_held.append(command)
        elif self._commits.error is None:
            self._decide(command)

    async def _room(self) -> None:
        """Wait for room in the open batch, and for the rules to hold. Raises: EngineError."""
        await self._commits.admit()
        while self._held is not None:
            await self._held.wait()
            await self._commits.admit()

    async def _admit(self, command: Command) -> None:
        """Wait until a command may be decided. Raises: EngineError."""
        await self._room()
        if self.is_draining and isinstance(command, _GRANTING):
            raise Draining(_STOPPING if self._is_stopping else self._draining)

    def _decide(self, command: Command) -> Outcome:
        now = self._clock.now()
        self._tick(now)
        self._commands += 1
        self._commits.count_command()
        return self._step(lambda: self._apply(command, now), now)

    def _apply(self, command: Command, now: int) -> Outcome:
        outcome = self._machine.apply(command, now)
        # What is forced from its holder is told on its stream, whoever watches.
        if self.watchers or outcome.__class__ is Forced:
            self._commits.note(Event(at=now, command=command, outcome=outcome))
        return outcome

    def _tick(self, now: int) -> None:
        """Do what is due, as much of it as one step may, if the open batch has room."""
        due_at = self._machine.next_deadline()
        if due_at is not None and due_at <= now and not self._commits.is_full and self._held is None:
            self._step(lambda: self._machine.tick(now), now)

    def _step(self, step: Callable[[], Result], now: int) -> Result:
        """Let the machine take a step, and see to what comes of it. Raises: CommandError.

        A bug is raised, too, and nothing is committed any more: half of a step may be done, and what memory
        says then must not become durable.
        """
        try:
            result = step()
            self._after_step(now)
        except CommandError:
            raise
        except Exception as error:
            self._commits.fail(error)
            raise
        return result

    def _after_step(self, now: int) -> None:
        """Queue what is to be told, see that it is committed, and set the timer for what falls due next."""
        self._steps += 1
        for notice in self._machine.take_notices():
            if isinstance(notice, WaitGranted):
                self._untold.add(grant_id(notice.grant))
            self._commits.note(Event(at=now, command=None, outcome=notice))
        self._commits.wake()
        self._arm(now)

    def _arm(self, now: int) -> None:
        """Set the timer for what falls due next."""
        at = self._machine.next_deadline()
        if (
            at is None
            or not self._has_timer
            or self._held is not None
            or (self._timer is not None and at >= self._timer_at)
        ):
            return
        if self._commits.is_full:
            # It waits for room: `_on_room`.
            self._commits.wake()
        else:
            self._set_timer(at, now)

    def _on_room(self) -> None:
        self._arm(self._clock.now())

    def _set_timer(self, at: int, now: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(at - now, 0) / SECOND, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._commits.error is None:
            now = self._clock.now()
            try:
                self._tick(now)
                self._arm(now)
            except Exception as error:  # noqa: BLE001 - nobody asked, so nobody else would hear of it
                self._commits.fail(error)

    # -- telling ---------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        if (
            self._observer is not None
            and event.command is None
            and not isinstance(event.outcome, DrainChanged)
        ):
            self._observer.happened(cast("Notice", event.outcome), event.at)
        if isinstance(event.outcome, WaitGranted | WaitRefused):
            self._tell_waiter(event.outcome)
        elif isinstance(event.outcome, WaitVoided) and event.outcome.waiter.id in self.waits:
            self.waits.pop(event.outcome.waiter.id).finish(event.outcome.error)
        if self.sessions:
            self.sessions.tell(event)
        for watch in self.watchers:
            watch.put(event)

    def _tell_waiter(self, notice: WaitGranted | WaitRefused) -> None:
        wait = self.waits.pop(notice.waiter.id, None)
        if wait is not None:
            self._finish(wait, notice)
        elif isinstance(notice, WaitGranted):
            # The stream went between the grant and its commit.
            self.return_grant(notice.grant, notice.waiter)

    def _finish(self, wait: Wait, notice: WaitGranted | WaitRefused) -> None:
        final = Granted(grant=notice.grant) if isinstance(notice, WaitGranted) else notice.refused
        wait.finish(final, notice.waiter)
        if self._observer is not None:
            self._observer.served(
                notice.waiter, final, first=wait.first, at=self._clock.now(), batch=self._commits.last
            )

    def _enter(self, wait: Wait, waiter_id: int) -> None:
        earlier = self.waits.get(waiter_id)
        if earlier is not None:
            earlier.finish(Refused(reason=Reason.SUPERSEDED, subject=""))
        wait.id = waiter_id
        self.waits[waiter_id] = wait
        self._tell_place(wait)

    def _tell_place(self, wait: Wait) -> None:
        now = self._clock.now()
        place = self._machine.place(wait.id, now)
        if place is not None:
            is_first = wait.first is None
            wait.show(place, now)
            if is_first and self._observer is not None:
                self._observer.queued(wait.command, place)

    def _on_failure(self, error: StoreFailed) -> None:
        self._fail_waits(error)
        self.sessions.fail(error)
        for watch in self.watchers:
            watch.fail(error)

    def _fail_waits(self, error: Exception) -> None:
        for wait in list(self.waits.values()):
            wait.finish(error)

    async def _tell_places_forever(self) -> None:
        told_at, left = -1, 0
        while True:
            await asyncio.sleep(_PLACES_INTERVAL_S)
            if self._steps != told_at:
                told_at, left = self._steps, len(self.waits)
            left -= self._tell_places(left, self._clock.now() + _PLACES_BUDGET_NS)

    def _tell_places(self, count_max: int, until: int) -> int:
        """Tell the first in the row their places, until it is time to stop; return how many."""
        count = 0
        for waiter_id in list(islice(self.waits, count_max)):
            # Those told go to the end of the row.
            wait = self.waits[waiter_id] = self.waits.pop(waiter_id)
            self._tell_place(wait)
            count += 1
            if self._clock.now() > until:
                break
        return count


__all__ = ["Engine", "EngineStatus"]
