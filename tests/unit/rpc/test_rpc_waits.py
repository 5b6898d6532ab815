"""A wait's stream: a grant that was not handed over is nobody's; one that was stays with whom it was for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordd.config import Settings
from coordd.core.commands import ReleaseLock, RequestLock
from coordd.core.outcomes import Granted
from coordd.core.records import Batch, Lock, Outcome
from coordd.engine import Engine
from coordd.rpc import waits
from coordd.store.sqlite import SqliteStore
from coordd.v1 import engagement_pb2 as pb


class GatedStore(SqliteStore):
    """A real store that commits while `gate` is set, and says when it is asked to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_asked = asyncio.Event()

    async def commit(self, batch: Batch) -> None:
        self.is_asked.set()
        await self.gate.wait()
        await super().commit(batch)


@pytest.fixture
async def store(tmp_path: Path) -> GatedStore:
    return GatedStore(tmp_path / "coordd.db")


@pytest.fixture
async def engine(store: GatedStore) -> AsyncIterator[Engine]:
    engine = Engine(Settings().rules(), store)
    await engine.start()
    yield engine
    store.gate.set()
    await engine.stop()


def wait_for(worker: str, request_id: str = "") -> RequestLock:
    return RequestLock(item="i", kind="like", worker=worker, wait_ns=10**10, request_id=request_id)


async def hold(engine: Engine) -> Lock:
    outcome = await engine.submit(RequestLock(item="i", kind="like", worker="holder"))
    assert isinstance(outcome, Granted)
    assert isinstance(outcome.grant, Lock)
    return outcome.grant


async def let_go(engine: Engine, lock: Lock) -> None:
    await engine.submit(ReleaseLock(item="i", worker="holder", token=lock.token, outcome=Outcome.FAILURE))


async def holder(engine: Engine) -> str:
    view = await engine.read(lambda machine, now: machine.item("i", "", now))
    return view.lock.worker if view.lock else ""


async def test_a_free_lock_is_granted_at_once(engine: Engine) -> None:
    messages = [message async for message in waits.stream(engine, wait_for("w"), pb.AwaitLockResponse)]
    assert [message.WhichOneof("event") for message in messages] == ["granted"]
    assert await holder(engine) == "w"


async def test_a_grant_that_was_asked_past_is_told(engine: Engine) -> None:
    stream = waits.stream(engine, wait_for("w"), pb.AwaitLockResponse)
    await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert await holder(engine) == "w"


async def test_a_grant_stays_when_its_stream_closes_right_after_it(engine: Engine) -> None:
    # As a client does that has read all it wants: to the daemon that looks like a stream that broke.
    stream = waits.stream(engine, wait_for("w"), pb.AwaitLockResponse)
    await anext(stream)
    await stream.aclose()
    assert await holder(engine) == "w"


async def test_a_grant_whose_stream_closes_before_it_is_handed_over_goes_to_the_next(engine: Engine) -> None:
    lock = await hold(engine)
    first = waits.stream(engine, wait_for("w1"), pb.AwaitLockResponse)
    second = waits.stream(engine, wait_for("w2"), pb.AwaitLockResponse)
    await anext(first)
    await anext(second)
    await let_go(engine, lock)
    await first.aclose()
    granted = [message async for message in second if message.HasField("granted")]
    assert granted[0].granted.worker == "w2"
    assert granted[0].granted.fencing_token > lock.token


async def test_a_waiter_whose_stream_closes_is_gone(engine: Engine) -> None:
    lock = await hold(engine)
    stream = waits.stream(engine, wait_for("w"), pb.AwaitLockResponse)
    await anext(stream)
    await stream.aclose()
    await let_go(engine, lock)
    assert await holder(engine) == ""


async def test_a_repeat_that_closes_leaves_the_grant_that_was_told(engine: Engine) -> None:
    stream = waits.stream(engine, wait_for("w", "r"), pb.AwaitLockResponse)
    assert [message.granted.worker async for message in stream] == ["w"]
    repeat = waits.stream(engine, wait_for("w", "r"), pb.AwaitLockResponse)
    await anext(repeat)
    await repeat.aclose()
    assert await holder(engine) == "w"


async def test_a_grant_whose_stream_goes_during_its_commit_goes_back(
    engine: Engine, store: GatedStore
) -> None:
    store.gate.clear()
    store.is_asked.clear()
    stream = waits.stream(engine, wait_for("w"), pb.AwaitLockResponse)
    waiting = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
    await store.is_asked.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    store.gate.set()
    assert await holder(engine) == ""
