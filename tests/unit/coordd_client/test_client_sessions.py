"""A worker's session: one keepalive for every block, and the daemon's word at once."""

import asyncio
from typing import Any

import pytest

from coordd_client import (
    Client,
    CoorddError,
    InvalidRequest,
    LeaseLost,
    Outcome,
    RevocationReason,
    Revoked,
    SessionTaken,
    Unavailable,
)
from coordd_client.testing import InMemoryDaemon


def calls_of(daemon: InMemoryDaemon) -> list[str]:
    """Have the daemon note the names of the calls made from now on."""
    names: list[str] = []
    call = daemon.call

    async def noted(method: Any, request: Any, timeout_s: float) -> Any:
        names.append(method.path.rpartition("/")[2])
        return await call(method, request, timeout_s)

    daemon.call = noted  # type: ignore[method-assign]
    return names


async def hold_until_it_is_taken(client: Client, daemon: InMemoryDaemon, item: str) -> None:
    async with client.lock(item, kind="reply") as lock:
        daemon.force_release(lock.fencing_token)
        await asyncio.Event().wait()


async def hold_while_the_daemon_is_away(client: Client, daemon: InMemoryDaemon) -> None:
    async with client.lock("tweet:1", kind="reply", ttl=3600) as lock:
        await daemon.advance(15)
        daemon.stop()
        daemon.force_release(lock.fencing_token)
        daemon.start()
        await daemon.advance(5)


async def test_a_session_keeps_what_its_blocks_hold_and_none_renews_itself(daemon: InMemoryDaemon):
    names = calls_of(daemon)
    async with daemon.client("w1") as client, client.session() as session:
        assert daemon.sessions == ("w1",)
        assert session.is_connected
        async with client.lock("tweet:1", kind="reply", ttl=20) as lock, client.reservation("file", "a"):
            assert lock.fencing_token > session.session_id > 0
            for _ in range(100):
                await daemon.advance(7)
                assert lock.left_s > 5
        assert names == ["RequestLock", "ReserveResource", "ReleaseResource", "ReleaseLock"]
    assert daemon.sessions == ()
    assert daemon.history[0].outcome is Outcome.SUCCESS


async def test_a_shorter_lease_is_kept_in_time(daemon: InMemoryDaemon):
    names = calls_of(daemon)
    async with daemon.client("w1") as client, client.session(ttl=3600):
        await daemon.advance(100)
        async with client.lock("tweet:1", kind="reply", ttl=3):
            await daemon.advance(100)
    assert names == ["RequestLock", "ReleaseLock"]


async def test_what_was_taken_before_renews_itself(daemon: InMemoryDaemon):
    names = calls_of(daemon)
    async with daemon.client("w1") as client, client.lock("tweet:1", kind="reply", ttl=9):
        async with client.session():
            await daemon.advance(100)
        await daemon.advance(100)
    assert names.count("RenewLock") > 40


async def test_blocks_renew_themselves_while_the_session_is_away(daemon: InMemoryDaemon):
    async with (
        daemon.client("w1") as client,
        client.session() as session,
        client.lock("tweet:1", kind="reply", ttl=60) as lock,
    ):
        daemon.stop()
        await daemon.advance(25)
        assert not session.is_connected
        daemon.start()
        await daemon.advance(5)
        assert session.is_connected
        names = calls_of(daemon)
        before = session.session_id
        await daemon.advance(300)
        assert lock.left_s > 30
        assert names == []
        assert session.session_id == before
    assert daemon.history[0].outcome is Outcome.SUCCESS


async def test_a_session_that_ran_out_is_opened_anew_and_its_blocks_renew_themselves(daemon: InMemoryDaemon):
    async with (
        daemon.client("w1") as client,
        client.session(ttl=5) as session,
        client.lock("tweet:1", kind="reply", ttl=60) as lock,
    ):
        before = session.session_id
        daemon.stop()
        await daemon.advance(20)
        daemon.start()
        names = calls_of(daemon)
        await daemon.advance(100)
        assert session.session_id > before
        assert lock.left_s > 30
        assert "RenewLock" in names
        async with client.lock("tweet:2", kind="reply", ttl=6):
            names.clear()
            await daemon.advance(10)
            assert names.count("RenewLock") <= 1, "that of tweet:1"


async def test_a_forced_release_cancels_its_block_at_once(daemon: InMemoryDaemon):
    told: list[Revoked] = []
    async with daemon.client("w1") as client, client.session(on_revoked=told.append) as session:
        events = session.events()
        with pytest.raises(LeaseLost):
            await hold_until_it_is_taken(client, daemon, "tweet:1")
        (token,) = [engagement.fencing_token for engagement in daemon.history]
        expected = Revoked(grant_id=token, name="tweet:1", reason=RevocationReason.FORCED, within_s=0.0)
        assert told == [expected]
        assert await anext(events) == expected
    assert [event async for event in events] == []


async def test_a_lease_that_went_while_nobody_was_told_is_lost_on_return(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client, client.session():
        with pytest.raises(LeaseLost):
            await hold_while_the_daemon_is_away(client, daemon)


async def test_goodbye_gives_back_what_other_tasks_hold_and_they_are_told(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        held = asyncio.Event()

        async def work() -> None:
            async with client.lock("tweet:1", kind="reply"):
                held.set()
                await asyncio.Event().wait()

        async with client.session():
            working = asyncio.create_task(work())
            await held.wait()
        with pytest.raises(LeaseLost, match="its session is closed"):
            await working
    assert daemon.locks == ()
    assert daemon.history[0].outcome is Outcome.UNKNOWN


async def test_one_name_one_session(daemon: InMemoryDaemon):
    async with daemon.client("w1") as first, daemon.client("w1") as second, first.session() as taken:
        with pytest.raises(SessionTaken):
            async with second.session():
                pass
        events = taken.events()
        async with second.session(take_over=True):
            await daemon.advance(0)
            assert isinstance(taken.error, SessionTaken)
            assert not taken.is_connected
            with pytest.raises(SessionTaken):
                await anext(taken.events())
            with pytest.raises(SessionTaken):
                await anext(events)


async def test_one_client_one_session(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client, client.session() as session:
        with pytest.raises(RuntimeError, match="already"):
            async with client.session():
                pass
        with pytest.raises(RuntimeError, match="only once"):
            async with session:
                pass


async def test_without_a_daemon_it_gives_up_in_time(daemon: InMemoryDaemon):
    daemon.stop()
    async with daemon.client("w1") as client:
        entering = asyncio.create_task(client.session().__aenter__())
        await daemon.advance(20)
        with pytest.raises(Unavailable):
            await entering


async def test_a_daemon_that_is_gone_at_the_end_is_not_waited_for_for_ever(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        session = client.session()
        await session.__aenter__()
        daemon.stop()
        leaving = asyncio.create_task(session.__aexit__(None, None, None))
        await daemon.advance(20)
        await leaving
        assert client._caller.alive is None
    daemon.start()
    assert daemon.sessions == ("w1",)
    await daemon.advance(30)
    assert daemon.sessions == ()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"weight": "2"}, TypeError),
        ({"labels": {"a": 1}}, TypeError),
        ({"ttl": "x"}, TypeError),
        ({"worker_class": 3}, TypeError),
        ({"on_revoked": 3}, TypeError),
        ({"ttl": float("nan")}, InvalidRequest),
    ],
)
async def test_wrong_arguments_are_named_at_once(
    daemon: InMemoryDaemon, options: Any, error: type[Exception]
):
    async with daemon.client("w1") as client:
        with pytest.raises(error):
            client.session(**options)


async def test_a_slow_reader_of_events_misses_the_oldest(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client, client.session() as session:
        events = session.events()
        for number in range(1_001):
            with pytest.raises(LeaseLost):
                await hold_until_it_is_taken(client, daemon, f"tweet:{number}")
        assert isinstance(await anext(events), Revoked)
    assert len([event async for event in events]) == 999


async def test_what_it_says_of_itself(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        session = client.session(weight=2.0)
        assert repr(session) == "HeldSession('w1', id=0, not connected)"
        async with session:
            assert session.weight == 2.0
            assert session.gates == {}
            assert repr(session).endswith("connected)")
    assert session.error is None


async def test_a_session_lost_for_another_reason_is_opened_anew(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client, client.session() as session:
        daemon._sessions.break_off(CoorddError("thousands were not read", reason="SLOW_READER"))
        await daemon.advance(5)
        assert session.is_connected


async def test_a_client_that_is_closed_before_its_session_says_so(daemon: InMemoryDaemon):
    client = daemon.client("w1")
    session = client.session()
    await session.__aenter__()
    with pytest.warns(ResourceWarning, match="HeldSession"):
        await client.close()
    await session.__aexit__(None, None, None)
    assert daemon.sessions == ()


async def test_a_client_that_is_closed_has_no_session():
    client = Client("127.0.0.1:1", worker="w1")
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        async with client.session():
            pass


async def test_what_is_left_of_a_block_that_ends_while_it_is_revoked_is_nobodys(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client, client.session():
        async with client.lock("tweet:1", kind="reply") as lock:
            pass
        # Its keeper is gone, so there is nobody to cancel.
        daemon._sessions.break_off(CoorddError("cut"))
        await daemon.advance(5)
        assert lock.left_s == 0
