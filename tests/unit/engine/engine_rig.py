"""What the engine's tests share: rules, commands, a store with a gate, a store in memory, virtual time."""

import asyncio
import math
import selectors
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from coordd.core.commands import ReleaseLock, RequestLock, TakePermit
from coordd.core.limits import HOUR, SECOND
from coordd.core.outcomes import Granted
from coordd.core.records import KEY_COLUMNS, Batch, Engagement, Key, Lock, Reservation, Row, Table
from coordd.core.rules import KindRule, LimitRule, PoolRule, Rules, TypeRule
from coordd.engine import Clock, Engine, Wait
from coordd.store.protocol import EngagementCount, Opened
from coordd.store.sqlite import SqliteStore

Result = TypeVar("Result")

RULES = Rules(
    kinds={"reply": KindRule(lock_delay_ns=SECOND)},
    types={"content": TypeRule(pool="slots")},
    pools={"slots": PoolRule(capacity=2)},
    limits={"post": LimitRule(windows={HOUR: 5})},
)


def lock(item: str = "tweet:1", worker: str = "w1", **fields: Any) -> RequestLock:
    return RequestLock(item=item, kind="reply", worker=worker, **fields)


def waiting_lock(worker: str, **fields: Any) -> RequestLock:
    return lock(worker=worker, wait_ns=fields.pop("wait_ns", HOUR), **fields)


def permit(worker: str = "w1", **fields: Any) -> TakePermit:
    return TakePermit(endpoint="post", worker=worker, **fields)


def release(granted: Any, outcome: int = 1) -> ReleaseLock:
    held = granted.grant
    return ReleaseLock(item=held.item, worker=held.worker, token=held.token, outcome=outcome)


class GatedStore(SqliteStore):
    """The real store. While held, its commits stop before they begin; `error` makes the next one fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.batches: list[Batch] = []
        self.error: Exception | None = None
        # What has happened, in order: "commit 1" when the first batch is durable, and what tests add.
        self.log: list[str] = []
        self._arrivals = asyncio.Semaphore(0)
        self._gate = asyncio.Event()
        self._gate.set()

    async def commit(self, batch: Batch) -> None:
        self.batches.append(batch)
        self._arrivals.release()
        await self._gate.wait()
        if self.error is not None:
            raise self.error
        await super().commit(batch)
        self.log.append(f"commit {len(self.batches)}")

    def hold(self) -> None:
        self._gate.clear()

    def let_go(self) -> None:
        self._gate.set()

    async def arrival(self) -> None:
        """Wait until one more commit has come to the gate than at the last call."""
        await self._arrivals.acquire()


class MemoryStore:
    """A store that lives as long as the test; for virtual time, since it needs no thread."""

    def __init__(self) -> None:
        self.tables: dict[Table, dict[Key, Row]] = {table: {} for table in Table}
        self.marks = (0, 0, 0)
        self.batches: list[Batch] = []

    async def open(self, history_ns: int) -> Opened:
        sequence, instant, last_id = self.marks
        tables = {table: list(rows.values()) for table, rows in self.tables.items()}
        return Opened(sequence=sequence, instant=instant, last_id=last_id, tables=tables)

    async def commit(self, batch: Batch) -> None:
        for table, keys in batch.deletes.items():
            for key in keys:
                self.tables[table].pop(key, None)
        for table, rows in batch.puts.items():
            self.tables[table].update({row[: KEY_COLUMNS[table]]: row for row in rows})
        self.marks = (batch.sequence, batch.instant, batch.last_id)
        self.batches.append(batch)

    async def latest_engagement(
        self, item: str, since: int, kinds: Collection[str], outcomes: Collection[int]
    ) -> Engagement | None:
        raise NotImplementedError

    async def count_engagements(self, since: int, worker: str) -> Sequence[EngagementCount]:
        raise NotImplementedError

    async def locks_page(self, after: int, size: int, worker: str) -> Sequence[Lock]:
        raise NotImplementedError

    async def reservations_page(self, after: int, size: int, worker: str, type: str) -> Sequence[Reservation]:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing to give up."""


def running(store: Any, **options: Any) -> AbstractAsyncContextManager[Engine]:
    """An engine over `store`, started and stopped."""

    @asynccontextmanager
    async def context() -> Any:
        engine = Engine(options.pop("rules", RULES), store, **options)
        await engine.start()
        try:
            yield engine
        finally:
            if isinstance(store, GatedStore):
                store.let_go()
            await engine.stop()

    return context()


async def granted(engine: Engine, command: Any) -> Granted:
    outcome = await engine.submit(command)
    assert isinstance(outcome, Granted)
    return outcome


async def turns(count: int = 20) -> None:
    """Let everything go on that can: for saying that something has *not* happened."""
    for _ in range(count):
        await asyncio.sleep(0)


class Reader:
    """A task that reads a wait to its end, as a stream's handler does; `events` is what it was told."""

    def __init__(self, wait: Wait) -> None:
        self.wait = wait
        self.events: list[Any] = []
        self._changed = asyncio.Condition()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> Any:
        async with self.wait as wait:
            async for event in wait:
                async with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
        return self.events[-1]

    async def told(self, is_it: Callable[[Any], bool]) -> Any:
        """Wait until an event is what `is_it` says, and return it."""
        async with self._changed:
            await self._changed.wait_for(lambda: any(map(is_it, self.events)))
        return next(filter(is_it, self.events))

    async def gone(self) -> None:
        """Break the stream off."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class VirtualTime:
    """A wall clock that only moves when nothing is left to do: then to the next timer, at once."""

    def __init__(self, wall_ns: int = 1_700_000_000 * SECOND) -> None:
        self.wall_ns = wall_ns
        self.monotonic_ns = SECOND

    def clock(self) -> Clock:
        return Clock(wall_ns=lambda: self.wall_ns, monotonic_ns=lambda: self.monotonic_ns)

    def run(self, main: Coroutine[Any, Any, Result]) -> Result:
        """Run `main` on an event loop of this time."""
        with asyncio.Runner(loop_factory=lambda: _Loop(self)) as runner:
            return runner.run(main)

    def pass_ns(self, ns: int) -> None:
        self.wall_ns += ns
        self.monotonic_ns += ns


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, time: VirtualTime) -> None:
        self._virtual = time
        super().__init__(_Selector(time))

    def time(self) -> float:
        return self._virtual.monotonic_ns / SECOND


class _Selector(selectors.SelectSelector):
    def __init__(self, time: VirtualTime) -> None:
        super().__init__()
        self._virtual = time

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everything waits for something that never comes"
        self._virtual.pass_ns(math.ceil(timeout * SECOND))
        return super().select(0)
