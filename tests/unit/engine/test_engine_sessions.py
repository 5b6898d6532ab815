"""A session's stream: what concerns its worker, in order, after its commit, and no more than it can hold."""

import asyncio
from typing import Any

import pytest
from engine_rig import GatedStore, MemoryStore, VirtualTime, granted, lock, running, turns
from msgspec.structs import replace

from coordd.core import sessions
from coordd.core.commands import ForceRelease, OpenSession
from coordd.core.errors import AlreadyExists, CommandError, FailedPrecondition, ResourceExhausted
from coordd.core.limits import SECOND
from coordd.core.outcomes import (
    CapacityChanged,
    Expired,
    Forced,
    GateChanged,
    Granted,
    LeasesExpiring,
    Preempted,
    SessionClosed,
    SessionExpired,
    SessionKept,
    SessionOpened,
)
from coordd.core.records import Booking, Bundle, Gate, Lock, Reservation, Session
from coordd.engine import Draining, Engine, Event, RevocationReason, Revoked, SessionStream, StoreFailed
from coordd.engine.session_stream import ANSWERS_PER_STREAM_MAX, WORDS_PER_STREAM_MAX
from coordd.store.protocol import CommitFailed

OPEN = OpenSession(worker="w1")


async def rest(stream: SessionStream) -> list[Any]:
    """Read what is still told, and how it ends."""
    told: list[Any] = []
    try:
        async for word in stream:
            told.append(word)  # noqa: PERF401  -- what came before it fails is wanted, too
    except Exception as error:  # noqa: BLE001  -- it is what the test looks at
        told.append(error)
    return told


async def test_answers_come_in_order_and_the_goodbyes_is_the_last(engine: Engine) -> None:
    async with engine.connect(OPEN) as stream:
        await stream.keep()
        await stream.close()
        assert [type(word) for word in await rest(stream)] == [SessionOpened, SessionKept, SessionClosed]
    assert len(engine.sessions) == 0


async def test_a_client_that_says_no_more_is_told_what_is_left(engine: Engine) -> None:
    async with engine.connect(OPEN) as stream:
        await stream.keep()
        stream.finish()
        assert [type(word) for word in await rest(stream)] == [SessionOpened, SessionKept]


async def test_a_revocation_is_told_after_its_commit_though_nobody_watches(
    engine: Engine, store: GatedStore
) -> None:
    async with engine.connect(OPEN) as stream:
        held = (await granted(engine, lock())).grant
        assert isinstance(await anext(stream), SessionOpened)
        store.hold()
        await store.arrival()
        forcing = asyncio.create_task(engine.submit(ForceRelease(id=held.token, reason="stuck")))  # type: ignore[union-attr]
        reading = asyncio.create_task(anext(stream))
        await turns()
        assert not reading.done()
        store.let_go()
        await forcing
        revoked = await reading
        assert isinstance(revoked, Revoked)
        assert (revoked.grant, revoked.reason) == (held, RevocationReason.FORCED)


async def test_a_worker_that_is_connected_is_not_connected_again(engine: Engine) -> None:
    async with engine.connect(OPEN) as stream:
        with pytest.raises(AlreadyExists) as taken:
            async with engine.connect(OPEN):
                pass
        assert taken.value.reason == "SESSION_TAKEN"
        assert engine.sessions.is_connected("w1", stream.id)


async def test_one_that_can_not_be_opened_ends_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 1)
    async with engine.connect(OPEN) as stream:
        with pytest.raises(CommandError, match="have sessions already"):
            async with engine.connect(OpenSession(worker="w2")):
                pass
        await stream.keep()
    assert len(engine.sessions) == 0


async def test_the_session_named_moves_to_the_new_stream(engine: Engine) -> None:
    async with engine.connect(OPEN) as first:
        async with engine.connect(OpenSession(worker="w1", session_id=first.id)) as second:
            assert second.id == first.id
            _, end = await rest(first)
            assert isinstance(end, FailedPrecondition)
            assert end.reason == "SESSION_SUPERSEDED"
        # The first one's end is not the second's.
        assert len(engine.sessions) == 0


async def test_what_is_being_taken_is_told_to_whoever_resumes(engine: Engine) -> None:
    async with engine.connect(OPEN) as stream:
        held = (await granted(engine, lock())).grant
        assert isinstance(held, Lock)
    held.preempt_at = held.expires_at
    async with engine.connect(OpenSession(worker="w1", session_id=stream.id)) as stream:
        opened, revocation = [await anext(stream) for _ in range(2)]
    assert isinstance(opened, SessionOpened)
    assert revocation == Revoked(grant=held, reason=RevocationReason.PREEMPTED, at=held.preempt_at)


async def test_taking_over_ends_the_earlier_session(engine: Engine) -> None:
    async with engine.connect(OPEN) as first, engine.connect(OPEN, is_taking_over=True) as second:
        assert second.id > first.id
        with pytest.raises(FailedPrecondition, match="is over"):
            await first.keep()


async def test_one_whose_commit_fails_is_not_left_behind(store: GatedStore) -> None:
    async with running(store) as engine:
        store.error = CommitFailed("disk full")
        with pytest.raises(StoreFailed):
            async with engine.connect(OPEN):
                pass
        assert len(engine.sessions) == 0


async def test_one_that_goes_while_it_is_opened_is_not_left_behind(engine: Engine, store: GatedStore) -> None:
    store.hold()
    opening = asyncio.create_task(engine.connect(OPEN).__aenter__())
    await store.arrival()
    assert len(engine.sessions) == 1
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert len(engine.sessions) == 0


async def test_a_failed_store_ends_every_stream(store: GatedStore) -> None:
    async with running(store) as engine, engine.connect(OPEN) as stream:
        store.error = CommitFailed("disk full")
        with pytest.raises(StoreFailed):
            await granted(engine, lock())
        assert isinstance((await rest(stream))[-1], StoreFailed)


async def test_a_daemon_that_stops_opens_none_and_ends_them_last(engine: Engine) -> None:
    async with engine.connect(OPEN) as stream:
        engine.wind_down()
        with pytest.raises(Draining):
            async with engine.connect(OpenSession(worker="w2")):
                pass
        await stream.keep()
        engine.end_watches()
        told = await rest(stream)
        assert [type(word) for word in told] == [SessionOpened, SessionKept, Draining]


async def test_a_client_is_read_no_faster_than_it_reads(engine: Engine) -> None:
    async with engine.connect(OPEN) as stream:
        for _ in range(ANSWERS_PER_STREAM_MAX - 1):
            await stream.keep()
        one_more = asyncio.create_task(stream.keep())
        await turns()
        assert not one_more.done()
        await anext(stream)
        await one_more


def revoked(held: Any) -> Revoked:
    return Revoked(grant=held, reason=RevocationReason.EXPIRED, at=0)


async def test_one_that_reads_nothing_is_cut_off(engine: Engine) -> None:
    held = (await granted(engine, lock())).grant
    async with engine.connect(OPEN) as stream:
        for _ in range(WORDS_PER_STREAM_MAX + 10):
            stream.put(revoked(held))
        [end] = await rest(stream)
        assert isinstance(end, ResourceExhausted)
        assert end.reason == "SLOW_READER"


async def test_the_latest_of_each_is_told_after_what_must_not_be_lost(engine: Engine) -> None:
    held = (await granted(engine, lock())).grant
    async with engine.connect(OPEN) as stream:
        gates = [GateChanged(gate=Gate(endpoint="post", strikes=strikes)) for strikes in (1, 2)]
        for gate in gates:
            stream.show("gate", gate)
        stream.show("pool", CapacityChanged(pool="p", before=5, after=4))
        stream.show("pool", CapacityChanged(pool="p", before=4, after=3))
        stream.put(revoked(held))
        stream.finish()
        told = await rest(stream)
    assert [type(word) for word in told] == [SessionOpened, Revoked, GateChanged, CapacityChanged]
    assert told[2] is gates[1]
    assert told[3] == CapacityChanged(pool="p", before=5, after=3)


def test_a_stream_in_silence_is_warned_and_ends_with_its_session(time: VirtualTime) -> None:
    async def main() -> list[Any]:
        async with running(MemoryStore(), clock=time.clock()) as engine, engine.connect(OPEN) as stream:
            await granted(engine, lock(ttl_ns=25 * SECOND))
            return await rest(stream)

    opened, warning, lost, end = time.run(main())
    assert isinstance(opened, SessionOpened)
    assert isinstance(warning, LeasesExpiring)
    assert isinstance(lost, Revoked)
    assert isinstance(end, FailedPrecondition)
    assert end.reason == "SESSION_LOST"


def test_what_ends_of_others_is_not_told(time: VirtualTime) -> None:
    async def main() -> list[Any]:
        async with running(MemoryStore(), clock=time.clock()) as engine, engine.connect(OPEN) as stream:
            await granted(engine, lock(worker="w2", ttl_ns=SECOND))
            async with engine.connect(OpenSession(worker="w3", ttl_ns=2 * SECOND)) as other:
                await rest(other)
            stream.finish()
            return await rest(stream)

    assert [type(word) for word in time.run(main())] == [SessionOpened]


async def test_each_event_goes_to_whom_it_concerns(engine: Engine) -> None:
    held = (await granted(engine, lock())).grant
    theirs = (await granted(engine, lock("tweet:2", worker="w9"))).grant
    used = Reservation(
        id=9, type="quota", resource_id="", pool="p", units=1, worker="w1", granted_at=0, expires_at=1,
        ttl_ns=1, is_refilling=True,
    )  # fmt: skip
    booking = Booking(
        id=8, endpoint="post", worker="w1", count=1, booked_at=0, execute_at=1, claim_until=2, use_by=3
    )
    other = Session(
        worker="w1", id=1, worker_class="", weight_milli=0, labels="{}", opened_at=0, expires_at=1, ttl_ns=1
    )
    gate = GateChanged(gate=Gate(endpoint="post"))
    capacity = CapacityChanged(pool="p", before=2, after=1)
    warning = LeasesExpiring(worker="w1", ids=(), first_end=0, session_end=9)
    async with engine.connect(OPEN) as stream:
        for outcome in (
            *(Expired(grant=held), Expired(grant=theirs), Expired(grant=used), Expired(grant=booking)),
            *(Preempted(grant=held, at=7), Preempted(grant=theirs, at=7)),
            *(Forced(grant=booking), Forced(grant=bundle_of(held, used))),
            *(warning, LeasesExpiring(worker="w9", ids=(), first_end=0, session_end=9)),
            # Of an earlier session, and of somebody who is not connected.
            *(SessionExpired(session=other), SessionExpired(session=replace(other, worker="w9"))),
            *(gate, capacity, Granted(grant=held)),
        ):
            engine.sessions.tell(Event(at=5, command=None, outcome=outcome))
        stream.finish()
        told = (await rest(stream))[1:]
    revocations = [(word.grant, word.reason, word.at) for word in told[:4] if isinstance(word, Revoked)]
    assert revocations == [
        (held, RevocationReason.EXPIRED, 5),
        (held, RevocationReason.PREEMPTED, 7),
        (held, RevocationReason.FORCED, 5),
        (used, RevocationReason.FORCED, 5),
    ]
    assert told[4:] == [warning, gate, capacity]


def bundle_of(*held: Any) -> Bundle:
    return Bundle(id=3, worker="w1", granted_at=0, members="[]", claims="[]", held=held)
