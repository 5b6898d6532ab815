"""The blocking client and the daemon as a process. Calls run in threads, as the daemon's starter is async."""

import asyncio
import queue
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_worlds import PATIENT, SCENARIO_CONFIG, RestartableDaemon
from daemon_api import DEADLINE_S

from coordd.v1 import admin_pb2, admin_pb2_grpc
from coordd_client import (
    ItemState,
    LeaseLost,
    Outcome,
    OutOfRange,
    Priority,
    Queued,
    RefusalReason,
    Refused,
    WaitTimeout,
)
from coordd_client.blocking import Client

WAIT_S = 50.0


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[RestartableDaemon]:
    """The daemon as a process."""
    config = tmp_path / "coordd.toml"
    config.write_text(SCENARIO_CONFIG.format(path=tmp_path / "data" / "coordd.db"))
    daemon = await RestartableDaemon.start(config)
    yield daemon
    await daemon.kill()


def open_client(daemon: RestartableDaemon, worker: str) -> Client:
    return Client(daemon.address, worker=worker, config=PATIENT)


def admin(daemon: RestartableDaemon, name: str, request: Any) -> Any:
    """Make one call to the AdminService."""
    with grpc.insecure_channel(daemon.address) as channel:
        stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
        return getattr(stub, name)(request, timeout=DEADLINE_S)


def lock_and_wait(client: Client, places: "queue.Queue[Queued]", **options: Any) -> int:
    with client.lock("i", kind="analysis", wait=WAIT_S, on_queued=places.put, **options) as lock:
        return lock.fencing_token


async def test_a_lock_is_held_for_the_block_and_its_end_is_recorded(daemon: RestartableDaemon) -> None:
    def work() -> None:
        with open_client(daemon, "w1") as client, open_client(daemon, "w2") as other:
            with client.lock("i", kind="analysis") as lock:
                status = client.get_lock("i")
                assert status.state is ItemState.IN_PROGRESS
                assert status.lock is not None
                assert status.lock.fencing_token == lock.fencing_token
                with pytest.raises(Refused) as caught, other.lock("i", kind="analysis"):
                    pytest.fail("it is held")
                assert caught.value.refusal.holder == "w1"
            assert client.get_lock("i").state is ItemState.DONE
            with pytest.raises(LookupError), client.lock("j", kind="reply"):
                raise LookupError
            with client.lock("j", kind="reply") as lock:
                lock.unknown()
            with pytest.raises(Refused) as caught, other.lock("j", kind="reply"):
                pytest.fail("it may have been done")
            assert caught.value.refusal.reason is RefusalReason.RECENTLY_ENGAGED
            stats = client.engagement_stats()
            assert (stats.successful, stats.failed, stats.unknown) == (1, 1, 1)

    await asyncio.to_thread(work)


async def test_a_wait_is_told_its_place_and_served_in_order(daemon: RestartableDaemon) -> None:
    def work() -> None:
        with (
            ThreadPoolExecutor(2) as pool,
            open_client(daemon, "w1") as client,
            open_client(daemon, "w2") as low,
            open_client(daemon, "w3") as high,
        ):
            news: tuple[queue.Queue[Queued], queue.Queue[Queued]] = (queue.Queue(), queue.Queue())
            with client.lock("i", kind="analysis"):
                first = pool.submit(lock_and_wait, low, news[0], priority=Priority.LOW)
                assert news[0].get(timeout=DEADLINE_S).position == 1
                second = pool.submit(lock_and_wait, high, news[1], priority=Priority.HIGH)
                assert news[1].get(timeout=DEADLINE_S).position == 1
                assert news[0].get(timeout=DEADLINE_S).position == 2
            assert first.result(DEADLINE_S) > second.result(DEADLINE_S)

    await asyncio.to_thread(work)


async def test_a_wait_times_out(daemon: RestartableDaemon) -> None:
    def work() -> None:
        with open_client(daemon, "w1") as client, client.lock("i", kind="analysis"):
            with pytest.raises(WaitTimeout), client.lock("i", kind="analysis", wait=0.05):
                pytest.fail("it is held")
            assert client.get_lock("i").waiters == 0

    await asyncio.to_thread(work)


async def test_a_lease_is_renewed_by_hand_and_lost_aloud(daemon: RestartableDaemon) -> None:
    def lose(lock: Any) -> None:
        admin(daemon, "ForceRelease", admin_pb2.ForceReleaseRequest(id=lock.fencing_token, reason="test"))
        with pytest.raises(LeaseLost):
            lock.renew()

    def work() -> None:
        with open_client(daemon, "w1") as client:
            with client.lock("i", kind="analysis", ttl=30) as lock:
                before = lock.left_s
                token = lock.fencing_token
                lock.renew()
                assert lock.left_s > before - 1
                held = client.get_lock("i").lock
                assert held is not None
                assert held.fencing_token == token
                assert (held.expires_at - held.granted_at).total_seconds() > 30
            with pytest.raises(LeaseLost), client.lock("j", kind="analysis", ttl=30) as lock:
                lose(lock)
            latest = client.has_recent_engagement("j")
            assert latest is not None
            assert latest.outcome is Outcome.UNKNOWN

    await asyncio.to_thread(work)


async def test_reservations_permits_and_bookings(daemon: RestartableDaemon) -> None:
    def work() -> None:
        with open_client(daemon, "w1") as client:
            with client.reservation("slot", units=2) as held:
                held.renew()
                assert client.check_availability("slot", units=1).free_units == 1
            with pytest.raises(OutOfRange), client.reservation("slot", units=4):
                pytest.fail("there are 3")
            with client.permit("post", 2) as permit:
                assert client.remaining_capacity("post").remaining == 1
                permit.not_sent()
            with client.permit("post") as permit:
                permit.response(200)
            assert client.remaining_capacity("post").remaining == 2
            booking = client.schedule("post", permits=2)
            with client.permit("post", booking_id=booking.booking_id) as permit:
                assert permit.grant.permits == 2
            assert client.cancel_schedule(booking.booking_id)

    await asyncio.to_thread(work)


async def test_lists_come_in_pages(daemon: RestartableDaemon) -> None:
    def work() -> None:
        with (
            open_client(daemon, "w1") as client,
            client.lock("a", kind="analysis"),
            client.lock("b", kind="analysis"),
            client.lock("c", kind="analysis"),
            client.reservation("memory", "m"),
        ):
            assert [each.item for each in client.locks(page_size=2)] == ["a", "b", "c"]
            assert list(client.locks(worker="w2")) == []
            assert [each.resource_id for each in client.reservations(type="memory")] == ["m"]

    await asyncio.to_thread(work)


async def test_a_crash_in_the_middle_of_a_wait_keeps_it(daemon: RestartableDaemon) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        open_client(daemon, "w1") as client,
        open_client(daemon, "w2") as other,
    ):
        news: queue.Queue[Queued] = queue.Queue()
        block = client.lock("i", kind="analysis")
        held = await asyncio.to_thread(block.__enter__)
        waiting = pool.submit(lock_and_wait, other, news)
        assert (await asyncio.to_thread(news.get, timeout=DEADLINE_S)).position == 1
        await daemon.kill()
        await daemon.start_again()
        assert (await asyncio.to_thread(news.get, timeout=DEADLINE_S)).position == 1
        await asyncio.to_thread(block.__exit__, None, None, None)
        assert await asyncio.wrap_future(waiting) > held.fencing_token


async def test_what_a_callback_raises_leaves_no_waiter_behind(daemon: RestartableDaemon) -> None:
    def give_up(_: Queued) -> None:
        raise LookupError("too long a queue")

    def work() -> None:
        with open_client(daemon, "w1") as client, client.lock("i", kind="analysis"):
            with (
                pytest.raises(LookupError, match="too long"),
                client.lock("i", kind="analysis", wait=WAIT_S, on_queued=give_up),
            ):
                pytest.fail("it is held")
            status = admin(daemon, "GetStatus", admin_pb2.GetStatusRequest())
            assert (status.waiters, status.waiters_away) == (0, 0)

    await asyncio.to_thread(work)
