"""The board of escalations: what a watcher is told, also when it was too slow or came in the middle."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from coordd.core.commands import LeaveWait, RequestLock, ResolveEscalation
from coordd.core.limits import HOUR
from coordd.core.outcomes import Queued
from coordd.core.records import Decision
from coordd.core.rules import ESCALATE, KindRule, Rules
from coordd.engine import Engine, watch
from coordd.rpc.escalations import Board, open_escalations
from coordd.store.sqlite import SqliteStore
from coordd.v1 import admin_pb2 as pb

RULES = Rules(kinds={"like": KindRule()}, types={}, pools={}, limits={}, escalation_default=Decision.DENY)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(RULES, SqliteStore(tmp_path / "coordd.db"))
    await engine.start()
    await engine.submit(RequestLock(item="a", kind="like", worker="w1"))
    yield engine
    await engine.stop()


async def asked(engine: Engine, worker: str = "w2") -> tuple[int, int]:
    """Let somebody wait and be asked about; return the ids of its waiter and of the escalation."""
    command = RequestLock(item="a", kind="like", worker=worker, wait_ns=HOUR, on_conflict=ESCALATE)
    queued = await engine.submit(command)
    assert isinstance(queued, Queued)
    _, escalations = await engine.read(open_escalations)
    [escalation] = [each for each in escalations if each.waiter_id == queued.id]
    return queued.id, escalation.id


async def decide(engine: Engine, id: int, decision: Decision = Decision.DENY) -> None:
    await engine.submit(ResolveEscalation(id=id, decision=decision, decided_by="boss"))


def told(message: pb.Escalation) -> tuple[int, bool, int]:
    return (message.escalation_id, message.is_open, message.decision)


async def test_those_that_are_open_are_told_first_then_what_changes(engine: Engine) -> None:
    _, first = await asked(engine)
    waiter, second = await asked(engine, "w3")
    async with aclosing(Board(engine).changes()) as changes:
        assert [told(await anext(changes)) for _ in range(2)] == [(first, True, 0), (second, True, 0)]
        await decide(engine, first)
        await engine.submit(LeaveWait(id=waiter))
        _, third = await asked(engine, "w4")
        assert [told(await anext(changes)) for _ in range(3)] == [
            (first, False, pb.DECISION_DENY),
            (second, False, 0),
            (third, True, 0),
        ]
    assert not engine.watchers


async def test_the_default_is_said(engine: Engine) -> None:
    await asked(engine)
    async with aclosing(Board(engine).changes()) as changes:
        assert (await anext(changes)).default_decision == pb.DECISION_DENY


async def test_what_happens_while_the_first_are_read_is_told_once(engine: Engine) -> None:
    async with aclosing(Board(engine).changes()) as changes:
        first = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        _, opened = await asked(engine)
        await decide(engine, opened)
        _, second = await asked(engine, "w3")
        assert told(await first)[0] == opened
        rest = [told(await anext(changes)) for _ in range(2)]
    assert rest == [(opened, False, pb.DECISION_DENY), (second, True, 0)]


async def test_one_that_reads_too_slowly_is_told_how_things_stand(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = await asked(engine)
    async with aclosing(Board(engine).changes()) as changes:
        assert told(await anext(changes)) == (first, True, 0)
        reading: Any = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        # From here on nothing is kept for it, until it is let in again.
        monkeypatch.setattr(watch, "BYTES_PER_WATCH_MAX", 0)
        await decide(engine, first)
        _, second = await asked(engine, "w3")
        monkeypatch.undo()
        _, third = await asked(engine, "w4")
        assert told(await reading) == (first, False, 0)
        assert [told(await anext(changes)) for _ in range(2)] == [(second, True, 0), (third, True, 0)]
        await decide(engine, third)
        assert told(await anext(changes)) == (third, False, pb.DECISION_DENY)
