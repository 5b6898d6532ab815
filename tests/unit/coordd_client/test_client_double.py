"""The in-memory double: the same client, and the daemon's rules."""

import asyncio
from typing import Any

import pytest

from coordd_client import (
    BookingLapsed,
    Client,
    Health,
    InvalidRequest,
    ItemState,
    LeaseLost,
    NotFound,
    Outcome,
    OutOfRange,
    Priority,
    Queued,
    RefusalReason,
    Refused,
    Superseded,
    Unavailable,
    WaitTimeout,
)
from coordd_client.testing import InMemoryDaemon


class _Worker:
    """Something that takes a lock and keeps it until told otherwise."""

    def __init__(self, client: Client, order: list[str], name: str, **options: Any) -> None:
        self.done = asyncio.Event()
        self.places: list[Queued] = []
        self.task = asyncio.create_task(self._work(client, order, name, options))

    async def _work(self, client: Client, order: list[str], name: str, options: dict[str, Any]) -> None:
        async with client.lock("tweet:1", kind="reply", on_queued=self.places.append, **options):
            order.append(name)
            await self.done.wait()


async def test_waits_are_served_by_class_then_quality_then_first_come(daemon: InMemoryDaemon):
    order: list[str] = []
    async with daemon.client("w1") as client:
        holder = _Worker(client, order, "holder")
        await daemon.advance(0)
        waiters = [
            _Worker(client, order, "low", wait=600, priority=Priority.LOW),
            _Worker(client, order, "first", wait=600),
            _Worker(client, order, "second", wait=600),
            _Worker(client, order, "good", wait=600, quality=0.9),
            _Worker(client, order, "critical", wait=600, priority=Priority.CRITICAL),
        ]
        await daemon.advance(0)
        assert [waiter.places[-1].position for waiter in waiters] == [5, 3, 4, 2, 1]
        blocked_by = waiters[0].places[-1].blocked_by
        assert blocked_by is not None
        assert (blocked_by.reason, blocked_by.holder) == (RefusalReason.HELD, "w1")
        assert (await client.get_lock("tweet:1")).waiters == 5
        for worker in (holder, *waiters):
            worker.done.set()
        await daemon.advance(1)
        await asyncio.gather(holder.task, *(waiter.task for waiter in waiters))
    assert order == ["holder", "critical", "good", "first", "second", "low"]
    assert [each.fencing_token for each in daemon.history] == [1, 2, 3, 4, 5, 6]


async def test_a_wait_times_out_on_the_daemons_time(daemon: InMemoryDaemon):
    order: list[str] = []
    async with daemon.client("w1") as client:
        holder = _Worker(client, order, "holder")
        await daemon.advance(0)
        waiter = _Worker(client, order, "waiter", wait=30)
        await daemon.advance(29.9)
        assert not waiter.task.done()
        await daemon.advance(0.2)
        with pytest.raises(WaitTimeout):
            await waiter.task
        holder.done.set()
        await holder.task


async def test_a_crash_in_the_middle_of_a_wait_keeps_the_place(daemon: InMemoryDaemon):
    order: list[str] = []
    async with daemon.client("w1") as client:
        workers = []
        for name in ("holder", "first", "second"):
            workers.append(_Worker(client, order, name, wait=600))
            await daemon.advance(0)
        daemon.stop()
        await daemon.advance(3)
        daemon.start()
        await daemon.advance(3)
        for worker in workers:
            worker.done.set()
        await daemon.advance(1)
        await asyncio.gather(*(worker.task for worker in workers))
    assert order == ["holder", "first", "second"]


async def test_a_place_is_not_kept_for_ever():
    daemon = InMemoryDaemon(resume_grace_s=2.0)
    async with daemon.client("w1") as client, client.lock("tweet:1", kind="reply"):
        waiting = asyncio.create_task(_hold(daemon.client("w2"), wait=600))
        await daemon.advance(1)
        waiting.cancel()
        await daemon.advance(1)
        assert (await client.get_lock("tweet:1")).waiters == 0


async def test_the_same_wait_elsewhere_supersedes_this_one(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client, client.lock("tweet:1", kind="reply"):
        other = daemon.client("w2")
        block = other.lock("tweet:1", kind="reply", wait=60)
        first = asyncio.create_task(block.__aenter__())
        await daemon.advance(1)
        second = asyncio.create_task(block.__aenter__())
        await daemon.advance(1)
        with pytest.raises(Superseded):
            await first
        second.cancel()
        await daemon.advance(1)


async def _hold(client: Client, **options: Any) -> None:
    async with client.lock("tweet:1", kind="reply", **options):
        pass


async def test_a_lock_that_runs_out_is_unknown_and_its_item_rests():
    daemon = InMemoryDaemon(lock_delay_s=60)
    async with daemon.client("w1") as client:
        working = asyncio.create_task(_forever(client))
        await daemon.advance(0)
        daemon.stop()
        await daemon.advance(31)
        daemon.start()
        with pytest.raises(LeaseLost):
            await working
        assert daemon.history[0].outcome is Outcome.UNKNOWN
        status = await client.get_lock("tweet:1")
        assert status.state is ItemState.UNKNOWN
        assert status.delayed_until is not None
        with pytest.raises(Refused) as caught:
            await _hold(client)
        assert caught.value.refusal.reason is RefusalReason.LOCK_DELAY
        assert caught.value.refusal.retry_after_s == 60.0
        await daemon.advance(60)
        await _hold(client)


async def _forever(client: Client) -> None:
    async with client.lock("tweet:1", kind="reply", ttl=30):
        await asyncio.Event().wait()


async def test_history_is_asked_and_kept_apart():
    daemon = InMemoryDaemon(min_interval_s={"reply": 100})
    async with daemon.client("w1") as client:
        async with client.lock("tweet:1", kind="reply") as held:
            held.failed()
        assert await client.has_recent_engagement("tweet:1") is None
        assert await client.has_recent_engagement("tweet:1", include_failures=True) is not None
        await _hold(client)
        latest = await client.has_recent_engagement("tweet:1", kinds=["reply"])
        assert latest is not None
        assert latest.outcome is Outcome.SUCCESS
        with pytest.raises(Refused) as caught:
            await _hold(client)
        assert caught.value.refusal.reason is RefusalReason.RECENTLY_ENGAGED
        await daemon.advance(100)
        assert await client.has_recent_engagement("tweet:1", within=50) is None
        stats = await client.engagement_stats()
        assert (stats.total, stats.successful, stats.failed, stats.success_rate) == (2, 1, 1, 0.5)
        assert stats.by_kind["reply"].total == 2
        assert (await client.engagement_stats(worker="w2")).total == 0
        assert (await client.get_lock("tweet:1")).state is ItemState.DONE
        assert (await client.get_lock("tweet:2")).state is ItemState.FREE


async def test_units_are_held_and_come_back(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        async with client.reservation("memory", units=3):
            free = await client.check_availability("memory", units=2)
            assert (free.available, free.free_units, free.capacity, free.queue_position) == (False, 1, 4, 1)
            with pytest.raises(Refused) as caught:
                async with client.reservation("memory", units=2):
                    pass
            assert caught.value.refusal.reason is RefusalReason.UNITS_TAKEN
            waiting = asyncio.create_task(_reserve(client))
            await daemon.advance(1)
            assert [each.units for each in daemon.reservations] == [3]
        await daemon.advance(1)
        await waiting
        assert (await client.check_availability("memory", units=4)).available
        with pytest.raises(OutOfRange):
            await client.check_availability("memory", units=5)
        with pytest.raises(InvalidRequest):
            await client.check_availability("content", units=1)
        assert (await client.reserve_api_quota("memory", 2)).units == 2
        assert [each.units async for each in client.reservations(worker="w1")] == [2]


async def _reserve(client: Client) -> None:
    async with client.reservation("memory", units=2, wait=60):
        pass


async def test_a_resource_is_exclusive_by_id_and_renewed(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client, client.reservation("content", "a", ttl=60) as held:
        await daemon.advance(600)
        assert [each.reservation_id for each in daemon.reservations] == [held.reservation_id]
        with pytest.raises(Refused) as caught:
            async with client.reservation("content", "a"):
                pass
        assert caught.value.refusal.subject == "content/a"
        async with client.reservation("content", "b"):
            assert len(daemon.reservations) == 2


async def test_permits_are_charged_from_their_latest_possible_use(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        for _ in range(2):
            async with client.permit("post") as held:
                held.response(200)
        async with client.permit("post") as held:
            held.not_sent()
        assert (await client.remaining_capacity("post")).remaining == 1
        async with client.permit("post") as held:
            held.response(429)
        with pytest.raises(Refused) as caught:
            async with client.permit("post"):
                pass
        refusal = caught.value.refusal
        assert (refusal.reason, refusal.window_s) == (RefusalReason.WINDOW_FULL, 900.0)
        assert refusal.retry_after_s == 900.0
        (status,) = (await client.system_status()).endpoints
        assert (status.health, status.violations, status.active_workers) == (Health.CRITICAL, 1, 1)
        windows = (await client.worker_allocation("post")).windows
        assert [(each.name, each.used, each.remaining) for each in windows] == [
            ("per_15min", 3, 0),
            ("per_hour", 3, 2),
        ]
        # Whoever comes first is served: nobody has a part.
        assert [each async for each in client.worker_allocations("post")] == []
        with pytest.raises(InvalidRequest):
            await anext(aiter(client.worker_allocations("nope")))
        waiting = asyncio.create_task(_call(client))
        await daemon.advance(899)
        assert not waiting.done()
        await daemon.advance(1)
        await waiting


async def _call(client: Client) -> None:
    async with client.permit("post", wait=3600):
        pass


async def test_an_unsettled_permit_stays_charged(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client, client.permit("post", 3):
        await daemon.advance(905)
        assert (await client.remaining_capacity("post")).remaining == 0, "it could be used until 10 s"
        await daemon.advance(5)
        assert (await client.remaining_capacity("post")).remaining == 2


async def test_a_booking_holds_its_time_and_is_claimed_once_it_has_come(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        booking = await client.schedule("post", permits=2, not_before=100)
        assert booking.estimated_delay_s == 100.0
        assert (await client.remaining_capacity("post")).remaining == 1
        with pytest.raises(Refused) as caught:
            async with client.permit("post", booking_id=booking.booking_id):
                pass
        assert caught.value.refusal.reason is RefusalReason.BOOKING_EARLY
        with pytest.raises(Refused):
            async with client.permit("post", booking_id=booking.booking_id, wait=99):
                pass
        claiming = asyncio.create_task(_claim(client, booking.booking_id))
        await daemon.advance(99)
        assert not claiming.done()
        await daemon.advance(1)
        assert await claiming == 2
        assert await client.cancel_schedule(booking.booking_id)


async def _claim(client: Client, booking_id: int) -> int:
    async with client.permit("post", booking_id=booking_id, wait=200) as held:
        return held.grant.permits


async def test_a_booking_lapses_or_is_cancelled(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        lapsed, cancelled = await client.schedule("post"), await client.schedule("post")
        assert not await client.cancel_schedule(cancelled.booking_id)
        await daemon.advance(61)
        for booking in (lapsed, cancelled):
            with pytest.raises(BookingLapsed):
                async with client.permit("post", booking_id=booking.booking_id):
                    pass
        with pytest.raises(NotFound):
            await client.cancel_schedule(99)


async def test_what_is_unknown_or_impossible_is_an_error(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.remaining_capacity("unheard-of")
        assert caught.value.reason == "UNKNOWN_ENDPOINT"
        with pytest.raises(OutOfRange):
            async with client.permit("post", 4):
                pass
        with pytest.raises(NotFound):
            daemon.force_release(1)


async def test_a_stopped_daemon_is_unavailable(daemon: InMemoryDaemon):
    daemon.stop()
    async with daemon.client("w1") as client:
        asking = asyncio.create_task(client.get_lock("tweet:1"))
        await daemon.advance(11)
        with pytest.raises(Unavailable):
            await asking


async def test_locks_are_listed_in_pages(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        blocks = [client.lock(f"tweet:{n}", kind="reply") for n in range(5)]
        for block in blocks:
            await block.__aenter__()
        assert [each.item async for each in client.locks(page_size=2)] == [f"tweet:{n}" for n in range(5)]
        for block in blocks:
            await block.__aexit__(None, None, None)


async def test_what_is_not_said_is_as_in_the_daemons_configuration():
    daemon = InMemoryDaemon(limits={"post": [(900, 3)]})
    async with daemon.client("w1") as client:
        booking = await client.schedule("post")
        assert (booking.claim_until - booking.execute_at).total_seconds() == 30.0
        async with client.permit("post") as held:
            assert held.use_within_s == 30.0


@pytest.mark.parametrize(
    "windows", [50, (900, 50), ["15m"], [(900, 50, 1)], [("15m", 50)], [(900, "50")], {"15m": 50}, "15m"]
)
def test_limits_are_pairs(windows: Any):
    with pytest.raises(TypeError, match=r"limits\['post'\] takes pairs of \(window in seconds, limit\)"):
        InMemoryDaemon(limits={"post": windows})


@pytest.mark.parametrize("windows", [[], [(0, 1)], [(900, 0)]])
def test_a_limit_has_a_window_and_lets_something_through(windows: Any):
    with pytest.raises(ValueError, match=r"limits\['post'\]"):
        InMemoryDaemon(limits={"post": windows})


def test_pools_are_counts():
    with pytest.raises(TypeError, match=r"pools\['memory'\] is a whole number, not '4'"):
        InMemoryDaemon(pools={"memory": "4"})  # type: ignore[dict-item]


async def test_a_form_is_looked_at_before_anything_is_done(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        with pytest.raises(InvalidRequest):
            await _hold(client, wait=1e-4)
        with pytest.raises(InvalidRequest):
            await _hold(client, ttl=1e6)
    assert daemon.history == ()
