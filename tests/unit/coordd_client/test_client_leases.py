"""Leases: renewed while the block runs, never after it, and given up in time."""

import asyncio
import itertools
from typing import Any

import grpc
import pytest
from client_servers import FAST, ScriptedServer, fail, lock, reply, stepped_clock

from coordd.v1 import engagement_pb2 as pb
from coordd.v1 import reservation_pb2
from coordd_client import Client, InvalidRequest, LeaseLost, Outcome, Unavailable
from coordd_client.testing import InMemoryDaemon

_Code = grpc.StatusCode


def _renewed(expires_in_s: float) -> Any:
    return reply(pb.RenewLockResponse(lock=lock(expires_in_s=expires_in_s)))


async def test_a_lease_is_renewed_at_a_third_with_jitter_and_never_after_the_block(daemon: InMemoryDaemon):
    ends: list[float] = []
    async with daemon.client("w1") as client:
        async with client.lock("tweet:1", kind="reply", ttl=90) as held:
            for _ in range(3000):
                await daemon.advance(0.1)
                ends.append(round(daemon.locks[0].expires_in_s + daemon.now(), 3))
            assert held.left_s > 50
        await daemon.advance(10_000)
    renewals = sorted(set(ends))
    gaps = [later - earlier for earlier, later in itertools.pairwise(renewals)]
    assert len(gaps) >= 9
    assert all(24.0 - 0.01 <= gap <= 30.0 + 0.01 for gap in gaps)
    assert len({round(gap, 1) for gap in gaps}) > 1, "a fleet must not renew in step"
    (engagement,) = daemon.history
    assert engagement.outcome is Outcome.SUCCESS


async def test_no_renewal_follows_a_release(server: ScriptedServer):
    renewed = asyncio.Event()
    clock = stepped_clock()

    async def renew(request: Any, context: Any) -> pb.RenewLockResponse:  # noqa: ARG001
        renewed.set()
        return pb.RenewLockResponse(lock=lock(expires_in_s=60))

    server.answers["RequestLock"] = reply(pb.RequestLockResponse(granted=lock(expires_in_s=60)))
    server.answers["RenewLock"] = renew
    async with Client(server.address, worker="w1", config=FAST, clock=clock) as client:
        for _ in range(5):
            renewed.clear()
            async with client.lock("tweet:1", kind="reply") as held:
                await clock.advance(20)
                await renewed.wait()
                assert 39 < held.left_s < 61
            assert server.names[-1] == "ReleaseLock"
        assert not [task for task in asyncio.all_tasks() if "Keeper" in repr(task)]


async def test_a_renewal_under_way_is_stopped_with_the_block(server: ScriptedServer):
    begun, stopped = asyncio.Event(), asyncio.Event()
    clock = stepped_clock()

    async def renew(request: Any, context: Any) -> None:  # noqa: ARG001
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    server.answers["RequestLock"] = reply(pb.RequestLockResponse(granted=lock(expires_in_s=60)))
    server.answers["RenewLock"] = renew
    async with (
        Client(server.address, worker="w1", config=FAST, clock=clock) as client,
        client.lock("tweet:1", kind="reply"),
    ):
        await clock.advance(20)
        await begun.wait()
    await stopped.wait()
    assert server.names == ["RequestLock", "RenewLock", "ReleaseLock"]


async def test_a_lease_that_is_taken_away_cancels_the_block(daemon: InMemoryDaemon):
    cleaned_up = False

    async def work(client: Client) -> None:
        nonlocal cleaned_up
        async with client.lock("tweet:1", kind="reply", ttl=90):
            try:
                await asyncio.Event().wait()
            finally:
                cleaned_up = True

    async with daemon.client("w1") as client:
        working = asyncio.create_task(work(client))
        await daemon.advance(1)
        daemon.force_release(daemon.locks[0].fencing_token)
        await daemon.advance(30)
        with pytest.raises(LeaseLost, match="over") as caught:
            await working
    assert cleaned_up
    assert working.cancelling() == 0, "the cancellation was ours, and it has been taken back"
    assert caught.value.reason == "LEASE_LOST"
    assert caught.value.metadata == {"item": "tweet:1"}
    assert isinstance(caught.value.__cause__, LeaseLost), "what the daemon said"


async def test_work_stops_by_its_own_clock_when_renewals_fail(daemon: InMemoryDaemon):
    stopped_s: list[float] = []

    async def work(client: Client) -> None:
        async with client.lock("tweet:1", kind="reply", ttl=30):
            try:
                await asyncio.Event().wait()
            finally:
                stopped_s.append(daemon.now())

    async with daemon.client("w1") as client:
        working = asyncio.create_task(work(client))
        await daemon.advance(0)
        daemon.stop()
        await daemon.advance(26.9)
        assert not working.done()
        await daemon.advance(0.2)
        with pytest.raises(LeaseLost, match="in time") as caught:
            await working
    assert stopped_s == [pytest.approx(27.0, abs=1e-3)], "a tenth of the lease before its end"
    assert isinstance(caught.value.__cause__, Unavailable)
    assert daemon.history == ()


async def test_a_short_outage_is_survived(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client, client.lock("tweet:1", kind="reply", ttl=30) as held:
        daemon.stop()
        await daemon.advance(20)
        daemon.start()
        await daemon.advance(600)
        assert held.left_s > 15
        assert len(daemon.locks) == 1


async def test_a_renewal_that_hangs_does_not_hold_up_the_end(server: ScriptedServer):
    async def hang(request: Any, context: Any) -> None:  # noqa: ARG001
        await asyncio.Event().wait()

    server.answers["RequestLock"] = reply(pb.RequestLockResponse(granted=lock(expires_in_s=0.3)))
    server.answers["RenewLock"] = hang
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(LeaseLost):
        async with (
            Client(server.address, worker="w1", config=FAST) as client,
            client.lock("tweet:1", kind="reply"),
        ):
            await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() - began_s < 5.0
    assert "ReleaseLock" not in server.names, "the daemon itself records UNKNOWN"


async def test_a_lease_counts_from_when_it_was_asked_for(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        daemon.stop()
        asking = asyncio.create_task(_enter_and_read(client))
        await daemon.advance(1)
        daemon.start()
        await daemon.advance(2)
        assert await asking == pytest.approx(30.0), "from the try that was answered, not from the first"


async def _enter_and_read(client: Client) -> float:
    async with client.lock("tweet:1", kind="reply", ttl=30) as held:
        return held.left_s


async def test_an_outside_cancellation_stays_one(daemon: InMemoryDaemon):
    async def work(client: Client) -> None:
        async with client.lock("tweet:1", kind="reply"):
            await asyncio.Event().wait()

    async with daemon.client("w1") as client:
        working = asyncio.create_task(work(client))
        await daemon.advance(1)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert working.cancelled()
        assert daemon.locks == ()
    assert daemon.history[0].outcome is Outcome.FAILURE


async def test_an_outside_cancellation_beside_a_lost_lease_stays_one(daemon: InMemoryDaemon):
    async def work(client: Client) -> None:
        async with client.lock("tweet:1", kind="reply", ttl=90):
            try:
                await asyncio.Event().wait()
            finally:
                asyncio.current_task().cancel()  # type: ignore[union-attr]

    async with daemon.client("w1") as client:
        working = asyncio.create_task(work(client))
        await daemon.advance(1)
        daemon.force_release(1)
        await daemon.advance(30)
        with pytest.raises(asyncio.CancelledError):
            await working
        assert working.cancelled()


async def test_a_timeout_around_a_block_is_a_timeout(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), client.lock("tweet:1", kind="reply"):
                await asyncio.Event().wait()
        assert daemon.locks == ()


async def test_a_timeout_inside_a_block_does_not_end_it(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client, client.lock("tweet:1", kind="reply"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        await asyncio.sleep(0)
        assert len(daemon.locks) == 1


async def test_a_loss_reaches_through_a_task_group(daemon: InMemoryDaemon):
    async def work(client: Client) -> None:
        async with client.lock("tweet:1", kind="reply", ttl=90), asyncio.TaskGroup() as group:
            for _ in range(2):
                _ = group.create_task(asyncio.Event().wait())

    async with daemon.client("w1") as client:
        working = asyncio.create_task(work(client))
        await daemon.advance(1)
        daemon.force_release(1)
        await daemon.advance(30)
        with pytest.raises(LeaseLost):
            await working


async def test_a_block_that_swallows_its_cancellation_is_still_told(daemon: InMemoryDaemon):
    async def work(client: Client) -> None:
        async with client.lock("tweet:1", kind="reply", ttl=90):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)

    async with daemon.client("w1") as client:
        working = asyncio.create_task(work(client))
        await daemon.advance(1)
        daemon.force_release(1)
        await daemon.advance(30)
        with pytest.raises(LeaseLost):
            await working
        assert working.cancelling() == 0


async def test_another_error_of_a_cancelled_block_goes_first_with_a_note(daemon: InMemoryDaemon):
    async def work(client: Client) -> None:
        async with client.lock("tweet:1", kind="reply", ttl=90):
            try:
                await asyncio.Event().wait()
            finally:
                raise LookupError("clean-up failed")

    async with daemon.client("w1") as client:
        working = asyncio.create_task(work(client))
        await daemon.advance(1)
        daemon.force_release(1)
        await daemon.advance(30)
        with pytest.raises(LookupError) as caught:
            await working
    assert "lease is over" in caught.value.__notes__[0]


async def test_units_that_cannot_be_renewed_are_used_in_time_or_lost(server: ScriptedServer):
    granted = reservation_pb2.Reservation(reservation_id=9, type="api_quota", worker="w1")
    granted.expires_in.FromMilliseconds(2_000)

    async def refuse(request: Any, context: Any) -> None:  # noqa: ARG001
        await fail(context, _Code.INVALID_ARGUMENT, "NOT_RENEWABLE")

    server.answers |= {
        "ReserveResource": reply(reservation_pb2.ReserveResourceResponse(granted=granted)),
        "ReleaseResource": reply(reservation_pb2.ReleaseResourceResponse()),
        "RenewReservation": refuse,
    }
    async with Client(server.address, worker="w1", config=FAST) as client:
        with pytest.raises(LeaseLost) as caught:
            async with client.reservation("api_quota", "tweet", units=3):
                await asyncio.Event().wait()
    assert isinstance(caught.value.__cause__, InvalidRequest)
    assert server.names.count("RenewReservation") == 1


async def test_a_release_is_retried_while_the_daemon_is_away(daemon: InMemoryDaemon):
    async def work(client: Client) -> None:
        async with client.lock("tweet:1", kind="reply"):
            daemon.stop()

    async with daemon.client("w1") as client:
        working = asyncio.create_task(work(client))
        await daemon.advance(5)
        assert not working.done()
        daemon.start()
        await daemon.advance(5)
        await working
    assert daemon.history[0].outcome is Outcome.SUCCESS


async def test_a_release_is_not_retried_for_ever(daemon: InMemoryDaemon):
    async def work(client: Client, error: Exception | None) -> None:
        async with client.lock("tweet:1", kind="reply"):
            daemon.stop()
            if error is not None:
                raise error

    for error in (None, LookupError("of the work")):
        daemon = InMemoryDaemon()
        async with daemon.client("w1") as client:
            working = asyncio.create_task(work(client, error))
            await daemon.advance(15)
            with pytest.raises(LookupError if error else Unavailable) as caught:
                await working
        if error:
            assert "could not give it back" in caught.value.__notes__[0]


async def test_a_second_cancellation_does_not_keep_the_lock_from_going_back(daemon: InMemoryDaemon):
    async def work(client: Client) -> None:
        async with client.lock("tweet:1", kind="reply"):
            await asyncio.Event().wait()

    async with daemon.client("w1") as client:
        working = asyncio.create_task(work(client))
        await daemon.advance(1)
        daemon.stop()
        working.cancel()
        await daemon.advance(1)
        working.cancel()
        await daemon.advance(1)
        assert working.cancelled()
        daemon.start()
        await daemon.advance(3)
        assert daemon.locks == ()


async def test_a_lease_that_ran_out_unseen_is_reported_at_the_release(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        with pytest.raises(LeaseLost):
            async with client.lock("tweet:1", kind="reply"):
                # A block that never yields hears of nothing until it ends.
                daemon.force_release(1)
    assert daemon.history[0].outcome is Outcome.UNKNOWN
