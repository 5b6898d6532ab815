"""Group commit: what has changed becomes durable, batch by batch, and only then is anybody told.

Owns: the open batch and the one under way, who waits for which, and what is to be told after it. While one
batch commits the next one fills; there is no artificial delay. If a commit fails, nothing of it is told, and
nothing is committed any more.
Must not know: commands, waits, where the store keeps things.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from coordd.core.limits import COMMANDS_PER_BATCH_MAX, RECORDS_PER_BATCH_MAX, SECOND
from coordd.core.machine import Machine
from coordd.core.records import Batch
from coordd.engine.clock import Clock
from coordd.engine.errors import Defect, Draining, StoreFailed
from coordd.engine.observer import Commit, CommitObserver
from coordd.engine.watch import Event
from coordd.store.protocol import CommitFailed, Store

_PRUNE_INTERVAL_NS: Final = 60 * SECOND


class Commits:
    """The batches of one machine into one store.

    Args: tell: called with each event once it is durable. on_room: called when a new batch is opened.
    on_failure: called when nothing more can be committed. history_retention_ns: older engagements are
    forgotten; 0: none. observer: sees each commit.
    """

    def __init__(
        self,
        machine: Machine,
        store: Store,
        clock: Clock,
        *,
        history_retention_ns: int,
        tell: Callable[[Event], None],
        on_room: Callable[[], None],
        on_failure: Callable[[StoreFailed], None],
        observer: CommitObserver | None,
    ) -> None:
        self.error: CommitFailed | None = None
        self.count = 0
        self.total_ns = 0
        self._machine = machine
        self._store = store
        self._clock = clock
        self._history_retention_ns = history_retention_ns
        self._tell = tell
        self._on_room = on_room
        self._on_failure = on_failure
        self._observer = observer
        self._sequence = self._pruned_at = 0
        # Of the open batch: commands in it, who waits for it, and what is to be told after it.
        self._commands = 0
        self._open: list[asyncio.Future[int]] = []
        self._events: list[Event] = []
        # Who waits for the commit under way; None: there is none.
        self._under_way: list[asyncio.Future[int]] | None = None
        self._has_work = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_failed = asyncio.Event()
        self._is_stopping = self._is_done = False

    def start(self, sequence: int, now: int) -> None:
        """Go on after the batch `sequence`, the last one in the store."""
        self._sequence = sequence
        self._pruned_at = now
        self._has_room.set()

    def keep_history(self, history_retention_ns: int) -> None:
        """Forget engagements that are older from now on; 0: none."""
        self._history_retention_ns = history_retention_ns

    async def failure(self) -> CommitFailed:
        """Wait until a commit fails or a bug shows, and return why."""
        while self.error is None:
            await self._has_failed.wait()
        return self.error

    def check(self) -> None:
        """Raise StoreFailed if a commit has failed, Draining once `run` has committed its last."""
        if self.error is not None:
            raise StoreFailed("the store has failed")
        if self._is_done:
            raise Draining("the daemon has stopped")

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be decided before the open batch is closed."""
        return self._commands >= COMMANDS_PER_BATCH_MAX or self._machine.changed >= RECORDS_PER_BATCH_MAX

    async def admit(self) -> None:
        """Wait for room in the open batch. Raises: EngineError."""
        while self.is_full and self.error is None:
            self._has_room.clear()
            # Commands that change nothing fill a batch, too, and nothing else would close it.
            self._has_work.set()
            await self._has_room.wait()
        self.check()

    def count_command(self) -> None:
        """Count a command into the open batch."""
        self._commands += 1

    def note(self, event: Event) -> None:
        """Tell an event after the open batch is committed."""
        self._events.append(event)

    def wake(self) -> None:
        """Begin the next commit when none is under way, if there is anything for it, or no room."""
        if self._events or self._machine.has_changes or self.is_full:
            self._has_work.set()

    @property
    def last(self) -> int:
        """The last batch that is durable, or under way."""
        return self._sequence

    async def durable(self) -> int:
        """Wait until all that has been decided so far is durable. Raises: EngineError.

        Returns: the batch it has waited for; 0: none.
        """
        # Nothing becomes durable any more: whoever waited for it would wait for ever.
        self.check()
        if self._machine.has_changes:
            # Also what no command has announced: a read may have found that charges have left their window.
            self._has_work.set()
            waiting = self._open
        elif self._under_way is not None:
            waiting = self._under_way
        else:
            return 0
        # One future for each answer: cancelling one request must not cancel what others wait for.
        committed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting.append(committed)
        return await committed

    async def run(self) -> None:
        """Commit until told to stop, or until a commit fails."""
        while self.error is None and not (self._is_stopping and not self._machine.has_changes):
            await self._has_work.wait()
            self._has_work.clear()
            try:
                await self._commit_open()
            except Exception as error:  # noqa: BLE001 - a bug must stop the daemon, not leave every caller waiting
                self.fail(error)
        self._is_done = True

    def stop(self) -> None:
        """Let `run` commit what is open, and return."""
        self._is_stopping = True
        self._has_work.set()

    async def _commit_open(self) -> None:
        """Commit the open batch, answer those who wait for it, then tell what has happened."""
        if self.error is not None:
            return
        events, self._events = self._events, []
        waiting, self._open = self._open, []
        commands, self._commands = self._commands, 0
        self._under_way = waiting
        batch = self._close_batch() if self._machine.has_changes else None
        self._has_room.set()
        self._on_room()
        if batch is not None:
            await self._commit(batch, commands)
        self._under_way = None
        for committed in waiting:
            if not committed.done():
                committed.set_result(self._sequence)
        for event in events:
            self._tell(event)

    def _close_batch(self) -> Batch:
        puts, deletes = self._machine.take_changes()
        self._sequence += 1
        now = self._clock.now()
        return Batch(
            sequence=self._sequence,
            instant=now,
            last_id=self._machine.last_id,
            puts=puts,
            deletes=deletes,
            prune_before=self._prune_before(now),
        )

    def _prune_before(self, now: int) -> int:
        if not self._history_retention_ns or now - self._pruned_at < _PRUNE_INTERVAL_NS:
            return 0
        self._pruned_at = now
        return now - self._history_retention_ns

    async def _commit(self, batch: Batch, commands: int) -> None:
        began = self._clock.now()
        await self._store.commit(batch)
        ended = self._clock.now()
        self.count += 1
        self.total_ns += ended - began
        if self._observer is not None:
            self._observer.committed(
                Commit(
                    sequence=batch.sequence,
                    commands=commands,
                    records=_size(batch),
                    began_at=began,
                    ended_at=ended,
                )
            )

    def fail(self, error: Exception) -> None:
        """Commit nothing more: a commit has failed, or a bug has shown that memory can't be trusted."""
        if self.error is None:
            self.error = error if isinstance(error, CommitFailed) else Defect(error)
        self._has_failed.set()
        self._has_room.set()
        self._has_work.set()
        failed = StoreFailed(str(self.error))
        for committed in (self._under_way or []) + self._open:
            if not committed.done():
                committed.set_exception(failed)
        self._on_failure(failed)


def _size(batch: Batch) -> int:
    return sum(map(len, batch.puts.values())) + sum(map(len, batch.deletes.values()))
