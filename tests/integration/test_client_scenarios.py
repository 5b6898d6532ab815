"""What the Python client does, told once and tried on two daemons: the real one, and the client's double.

This is what keeps the double truthful: users test their code against it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from client_worlds import SCENARIO_CONFIG, DoubleWorld, Hold, RealWorld, World, scenario_double

from coordd.config import load
from coordd.server import Daemon
from coordd_client import (
    BookingLapsed,
    Client,
    CoorddError,
    HeldSession,
    InvalidRequest,
    ItemState,
    LeaseLost,
    NotFound,
    NotHolder,
    OnConflict,
    Outcome,
    OutOfRange,
    Priority,
    Refusal,
    RefusalReason,
    Refused,
    RevocationReason,
    Revoked,
    SessionTaken,
    Superseded,
    WaitTimeout,
)

TTL_S = 2.0
WAIT_S = 60.0
# Long enough that nothing is renewed while a scenario lasts.
LONG_TTL_S = 3600.0
NEVER_GIVEN = 2**53 - 1


@pytest.fixture(params=["daemon", "double"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Each of the two, freshly made."""
    async with AsyncExitStack() as stack:
        if request.param == "double":
            yield DoubleWorld(scenario_double(), stack)
            return
        config = tmp_path / "coordd.toml"
        config.write_text(SCENARIO_CONFIG.format(path=tmp_path / "data" / "coordd.db"))
        daemon = Daemon(load(config, {}))
        await daemon.start()
        stack.push_async_callback(daemon.stop, 0)
        yield RealWorld(daemon.address, stack)


def facts(refusal: Refusal) -> tuple[RefusalReason, str, str, float | None, int]:
    """Return what of a refusal does not depend on the time it was made at."""
    return (refusal.reason, refusal.subject, refusal.holder, refusal.window_s, refusal.queue_position)


async def refusal_of(block: Any) -> Refusal:
    """Enter a block that is refused."""
    with pytest.raises(Refused) as caught:
        async with block:
            pytest.fail("it was granted")
    return caught.value.refusal


async def take(block: Any, then: Callable[[Any], Awaitable[None]] | None = None) -> Any:
    """Enter a block, do something in it, and leave it."""
    async with block as held:
        if then is not None:
            await then(held)
        return held


async def waiters(client: Client, item: str) -> int:
    return (await client.get_lock(item)).waiters


# ---- locks: how a block ends


async def test_a_block_that_ends_cleanly_has_acted(world: World) -> None:
    client = world.client("w1")
    async with client.lock("i", kind="analysis") as lock:
        status = await client.get_lock("i")
        assert status.state is ItemState.IN_PROGRESS
        assert status.lock is not None
        assert (status.lock.worker, status.lock.fencing_token) == ("w1", lock.fencing_token)
        assert status.lock.expires_at > status.lock.granted_at
        assert 0 < lock.left_s <= lock.grant.expires_in_s <= 900
    status = await client.get_lock("i")
    assert (status.state, status.lock, status.delayed_until) == (ItemState.DONE, None, None)
    latest = await client.has_recent_engagement("i", kinds=["analysis"])
    assert latest is not None
    assert latest == status.last_engagement
    assert (latest.outcome, latest.worker, latest.kind) == (Outcome.SUCCESS, "w1", "analysis")
    assert latest.fencing_token == lock.fencing_token
    assert (await take(client.lock("i", kind="analysis"))).fencing_token > lock.fencing_token


async def test_a_block_that_raises_has_not_acted(world: World) -> None:
    client = world.client("w1")
    with pytest.raises(LookupError, match="as it was raised"):
        async with client.lock("i", kind="reply"):
            raise LookupError("as it was raised")
    assert await client.has_recent_engagement("i") is None
    failure = await client.has_recent_engagement("i", include_failures=True)
    assert failure is not None
    assert failure.outcome is Outcome.FAILURE
    assert (await client.get_lock("i")).state is ItemState.FREE
    await take(client.lock("i", kind="reply"))


@pytest.mark.parametrize(
    ("says", "raises", "outcome", "state"),
    [
        ("succeeded", False, Outcome.SUCCESS, ItemState.DONE),
        ("succeeded", True, Outcome.SUCCESS, ItemState.DONE),
        ("failed", False, Outcome.FAILURE, ItemState.FREE),
        ("failed", True, Outcome.FAILURE, ItemState.FREE),
        ("unknown", False, Outcome.UNKNOWN, ItemState.UNKNOWN),
        ("unknown", True, Outcome.UNKNOWN, ItemState.UNKNOWN),
    ],
)
async def test_what_a_block_says_goes_before_how_it_ends(
    world: World, says: str, outcome: Outcome, state: ItemState, *, raises: bool
) -> None:
    client = world.client("w1")

    async def work() -> None:
        async with client.lock("i", kind="analysis") as lock:
            getattr(lock, says)()
            if raises:
                raise LookupError

    [error] = await asyncio.gather(work(), return_exceptions=True)
    assert isinstance(error, LookupError) == raises
    latest = await client.has_recent_engagement("i", include_failures=True)
    assert latest is not None
    assert latest.outcome is outcome
    assert (await client.get_lock("i")).state is state


async def test_a_cancelled_block_has_not_acted_and_the_next_may(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    hold = Hold(client.lock, "i", kind="analysis")
    await hold.granted()
    waiting = Hold(other.lock, "i", kind="analysis", wait=WAIT_S)
    await waiting.queued(1)
    await hold.cancel()
    await waiting.granted()
    latest = await client.has_recent_engagement("i", include_failures=True)
    assert latest is not None
    assert latest.outcome is Outcome.FAILURE
    await waiting.end()


async def test_history_is_counted(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    await take(client.lock("a", kind="analysis"))
    await take(other.lock("b", kind="reply"))
    async with client.lock("c", kind="reply") as lock:
        lock.failed()
    async with client.lock("d", kind="analysis") as lock:
        lock.unknown()
    stats = await client.engagement_stats()
    assert (stats.total, stats.successful, stats.failed, stats.unknown) == (4, 2, 1, 1)
    assert stats.success_rate == 0.5
    assert (stats.by_kind["reply"].total, stats.by_kind["reply"].failed) == (2, 1)
    assert (stats.by_kind["analysis"].successful, stats.by_kind["analysis"].unknown) == (1, 1)
    assert (await client.engagement_stats(worker="w2")).total == 1


# ---- locks: why not


async def test_a_held_item_is_refused_with_its_holder(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    async with client.lock("i", kind="analysis", ttl=LONG_TTL_S):
        refusal = await refusal_of(other.lock("i", kind="analysis"))
        assert facts(refusal) == (RefusalReason.HELD, "i", "w1", None, 1)
        assert refusal.retry_after_s is not None
        assert LONG_TTL_S - 20 < refusal.retry_after_s <= LONG_TTL_S
        assert refusal.until is not None


async def test_one_that_would_rather_not_wait_is_refused_at_once(world: World) -> None:
    async with world.client("w1").lock("i", kind="analysis"):
        block = world.client("w2").lock("i", kind="analysis", wait=WAIT_S, on_conflict=OnConflict.DENY)
        refusal = await refusal_of(block)
    assert facts(refusal) == (RefusalReason.HELD, "i", "w1", None, 1)


async def test_a_worker_does_not_get_twice_what_it_holds(world: World) -> None:
    client = world.client("w1")
    async with client.lock("i", kind="analysis"):
        refusal = await refusal_of(client.lock("i", kind="analysis"))
        assert facts(refusal) == (RefusalReason.HELD, "i", "w1", None, 1)


async def test_what_was_done_lately_is_refused_and_waiting_is_no_use(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    await take(client.lock("i", kind="reply"))
    for wait in (None, WAIT_S):
        refusal = await refusal_of(other.lock("i", kind="reply", wait=wait))
        assert facts(refusal) == (RefusalReason.RECENTLY_ENGAGED, "i", "w1", None, 0)
        assert refusal.retry_after_s is not None
        assert 3580 < refusal.retry_after_s <= 3600
    await take(other.lock("i", kind="analysis"))


async def test_a_failure_does_not_keep_others_away(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    async with client.lock("i", kind="reply") as lock:
        lock.failed()
    await take(other.lock("i", kind="reply"))


async def test_what_was_done_lately_is_said_before_who_holds_it(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    await take(client.lock("i", kind="reply"))
    async with client.lock("i", kind="analysis"):
        refusal = await refusal_of(other.lock("i", kind="reply"))
    assert refusal.reason is RefusalReason.RECENTLY_ENGAGED


async def test_those_who_wait_are_refused_once_it_is_done(world: World) -> None:
    client, other, third = world.client("w1"), world.client("w2"), world.client("w3")
    hold = Hold(client.lock, "i", kind="reply")
    await hold.granted()
    waiting = Hold(other.lock, "i", kind="reply", wait=WAIT_S)
    await waiting.queued(1)
    behind = Hold(third.lock, "i", kind="analysis", wait=WAIT_S)
    await behind.queued(2)
    await hold.end()
    failure = await waiting.failure()
    assert isinstance(failure, Refused)
    assert not isinstance(failure, WaitTimeout)
    assert facts(failure.refusal) == (RefusalReason.RECENTLY_ENGAGED, "i", "w1", None, 0)
    await behind.granted()
    await behind.end()


# ---- locks: waiting


async def test_waits_are_served_by_class_then_quality_then_arrival(world: World) -> None:
    names: list[str] = []
    hold = Hold(world.client("holder").lock, "i", kind="analysis", names=names)
    await hold.granted()
    asked: dict[str, dict[str, Any]] = {
        "low": {"priority": Priority.LOW},
        "first": {},
        "second": {},
        "better": {"quality": 0.9},
        "high": {"priority": Priority.HIGH},
        "critical": {"priority": Priority.CRITICAL},
    }
    waits = []
    client = world.client("onlooker")
    for count, (worker, options) in enumerate(asked.items(), 1):
        waits.append(
            Hold(world.client(worker).lock, "i", kind="analysis", wait=WAIT_S, names=names, **options)
        )
        await waits[-1].queued()
        assert await waiters(client, "i") == count
    for wait, position in zip(waits, (6, 4, 5, 3, 2, 1), strict=True):
        await wait.queued(position)
    for each in (hold, waits[5], waits[4], waits[3], waits[1], waits[2], waits[0]):
        await each.granted()
        await each.end()
    assert names == ["holder", "critical", "high", "better", "first", "second", "low"]


async def test_a_wait_is_told_what_blocks_it_and_when_it_moves_up(world: World) -> None:
    hold = Hold(world.client("w1").lock, "i", kind="analysis", ttl=LONG_TTL_S)
    await hold.granted()
    first = Hold(world.client("w2").lock, "i", kind="analysis", ttl=LONG_TTL_S, wait=WAIT_S)
    place = await first.queued(1)
    assert 0 < place.times_out_in_s <= WAIT_S
    assert place.blocked_by is not None
    assert (place.blocked_by.reason, place.blocked_by.subject) == (RefusalReason.HELD, "i")
    assert place.blocked_by.holder == "w1"
    second = Hold(world.client("w3").lock, "i", kind="analysis", wait=WAIT_S)
    await second.queued(2)
    await hold.end()
    await first.granted()
    place = await second.queued(1)
    assert place.blocked_by is not None
    assert place.blocked_by.holder == "w2"
    await first.end()
    await second.granted()
    await second.end()
    assert [place.position for place in first.places] == [1]
    assert second.places[0].position == 2


async def test_a_wait_gives_up_when_its_time_is_over(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    async with client.lock("i", kind="analysis", ttl=LONG_TTL_S):
        waiting = Hold(other.lock, "i", kind="analysis", wait=0.2)
        await waiting.queued(1)
        await world.until(waiting.has_ended)
        failure = await waiting.failure()
        assert isinstance(failure, WaitTimeout)
        assert facts(failure.refusal) == (RefusalReason.WAIT_TIMEOUT, "i", "", None, 0)
        assert await waiters(client, "i") == 0


async def test_cancelling_a_wait_removes_the_waiter(world: World) -> None:
    client, other, third = world.client("w1"), world.client("w2"), world.client("w3")
    hold = Hold(client.lock, "i", kind="analysis")
    await hold.granted()
    waiting = Hold(other.lock, "i", kind="analysis", wait=WAIT_S)
    await waiting.queued(1)
    behind = Hold(third.lock, "i", kind="analysis", wait=WAIT_S)
    await behind.queued(2)
    await waiting.cancel()
    await other.close()  # which ends what it does in the background
    await behind.queued(1)
    assert await waiters(client, "i") == 1
    await hold.end()
    await behind.granted()
    await behind.end()
    assert (await client.engagement_stats(worker="w2")).total == 0


async def test_the_same_wait_elsewhere_supersedes_this_one(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    hold = Hold(client.lock, "i", kind="analysis")
    await hold.granted()
    block = other.lock("i", kind="analysis", wait=WAIT_S)
    first = asyncio.create_task(take(block))

    async def waits() -> bool:
        return await waiters(client, "i") == 1

    await world.until(waits)
    second = asyncio.create_task(take(block))
    with pytest.raises(Superseded) as caught:
        await first
    assert caught.value.refusal.reason is RefusalReason.SUPERSEDED
    assert await waiters(client, "i") == 1
    await hold.end()
    assert (await second).grant.worker == "w2"


async def test_a_grant_without_a_wait_does_not_overtake_those_who_wait(world: World) -> None:
    client, large, small = world.client("w1"), world.client("w2"), world.client("w3")
    async with client.reservation("slot", units=2):
        waiting = Hold(large.reservation, "slot", units=3, wait=WAIT_S)
        await waiting.queued(1)
        refusal = await refusal_of(small.reservation("slot", units=1))
        assert facts(refusal) == (RefusalReason.QUEUED_AHEAD, "slot", "", None, 2)
        availability = await small.check_availability("slot", units=1)
        assert (availability.available, availability.queue_position) == (False, 2)
        async with small.reservation("slot", units=1, priority=Priority.HIGH):
            pass
    await waiting.granted()
    await waiting.end()


async def test_a_small_wait_does_not_overtake_a_large_one(world: World) -> None:
    client, names = world.client("w1"), list[str]()
    hold = Hold(client.reservation, "slot", units=2)
    await hold.granted()
    large = Hold(world.client("large").reservation, "slot", units=3, wait=WAIT_S, names=names)
    place = await large.queued(1)
    assert place.blocked_by is not None
    assert (place.blocked_by.reason, place.blocked_by.subject) == (RefusalReason.UNITS_TAKEN, "slot")
    small = Hold(world.client("small").reservation, "slot", units=1, wait=WAIT_S, names=names)
    place = await small.queued(2)
    assert place.blocked_by is not None
    assert place.blocked_by.reason is RefusalReason.QUEUED_AHEAD
    await hold.end()
    await large.granted()
    await large.end()
    await small.granted()
    await small.end()
    assert names == ["large", "small"]


async def test_when_the_first_gives_up_the_next_is_served_at_once(world: World) -> None:
    async with world.client("w1").reservation("slot", units=2):
        large = Hold(world.client("w2").reservation, "slot", units=3, wait=WAIT_S)
        await large.queued(1)
        small = Hold(world.client("w3").reservation, "slot", units=1, wait=WAIT_S)
        await small.queued(2)
        await large.cancel()
        await small.granted()
        await small.end()


# ---- leases


async def test_a_lease_outlives_its_ttl_while_its_block_lasts_and_no_longer(world: World) -> None:
    client = world.client("w1")
    async with client.lock("i", kind="analysis", ttl=TTL_S) as lock:

        async def is_renewed() -> bool:
            held = (await client.get_lock("i")).lock
            assert held is not None
            assert held.fencing_token == lock.fencing_token
            return (held.expires_at - held.granted_at).total_seconds() > 2 * TTL_S

        await world.until(is_renewed)
        assert lock.left_s > 0
    latest = await client.has_recent_engagement("i")
    assert latest is not None
    assert latest.outcome is Outcome.SUCCESS


async def test_a_reservation_outlives_its_ttl_while_its_block_lasts(world: World) -> None:
    client = world.client("w1")
    async with client.reservation("memory", "a", ttl=TTL_S) as held:

        async def is_renewed() -> bool:
            [view] = [each async for each in client.reservations(type="memory")]
            assert view.reservation_id == held.reservation_id
            return (view.expires_at - view.granted_at).total_seconds() > 2 * TTL_S

        await world.until(is_renewed)
    assert [each async for each in client.reservations()] == []


@pytest.mark.parametrize("what", ["lock", "reservation"])
async def test_a_lease_that_is_taken_away_cancels_its_block(world: World, what: str) -> None:
    client = world.client("w1")
    if what == "lock":
        hold = Hold(client.lock, "i", kind="analysis", ttl=TTL_S)
    else:
        hold = Hold(client.reservation, "memory", "i", ttl=TTL_S)
    held = await hold.granted()
    grant_id = held.fencing_token if what == "lock" else held.reservation_id
    await world.force_release(grant_id)
    await world.until(hold.has_ended)
    failure = await hold.failure()
    assert isinstance(failure, LeaseLost)
    assert failure.reason == "LEASE_LOST"
    assert hold.was_cancelled, "the work itself must be stopped"
    if what == "lock":
        status = await client.get_lock("i")
        assert status.state is ItemState.UNKNOWN
        assert status.last_engagement is not None
        assert status.last_engagement.fencing_token == grant_id


async def test_the_task_that_lost_a_lease_can_go_on(world: World) -> None:
    client = world.client("w1")

    async def work() -> str:
        try:
            async with client.lock("i", kind="analysis", ttl=TTL_S) as lock:
                await world.force_release(lock.fencing_token)
                await asyncio.Event().wait()
        except LeaseLost:
            await client.get_lock("i")
            async with asyncio.timeout(WAIT_S):
                await take(client.lock("i", kind="analysis"))
            return "went on"
        return "was not told"

    working = asyncio.create_task(work())

    async def is_done() -> bool:
        await client.get_lock("i")
        return working.done()

    await world.until(is_done)
    assert await working == "went on"
    assert working.cancelling() == 0


@pytest.mark.parametrize("says", ["succeeded", "failed", "unknown"])
async def test_a_block_that_ends_without_having_noticed_is_told(world: World, says: str) -> None:
    client = world.client("w1")

    async def lose(lock: Any) -> None:
        await world.force_release(lock.fencing_token)
        getattr(lock, says)()

    with pytest.raises(LeaseLost):
        await take(client.lock("i", kind="analysis", ttl=LONG_TTL_S), lose)
    latest = await client.has_recent_engagement("i")
    assert latest is not None
    assert latest.outcome is Outcome.UNKNOWN


async def test_its_own_error_goes_before_that_the_lease_was_lost(world: World) -> None:
    client = world.client("w1")

    async def lose(lock: Any) -> None:
        await world.force_release(lock.fencing_token)
        raise LookupError

    with pytest.raises(LookupError) as caught:
        await take(client.lock("i", kind="analysis", ttl=LONG_TTL_S), lose)
    assert "could not give it back" in caught.value.__notes__[0]


# ---- reservations


async def test_a_resource_is_exclusive_by_its_id(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    async with client.reservation("memory", "a", ttl=LONG_TTL_S) as held:
        assert (held.grant.type, held.grant.resource_id, held.grant.pool) == ("memory", "a", "")
        refusal = await refusal_of(other.reservation("memory", "a"))
        assert facts(refusal) == (RefusalReason.HELD, "memory/a", "w1", None, 1)
        waiting = Hold(other.reservation, "memory", "a", wait=WAIT_S)
        await waiting.queued(1)
        async with other.reservation("memory", "b"), other.reservation("cpu", "a"):
            pass
    await waiting.granted()
    await waiting.end()


async def test_units_are_held_and_come_back(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    async with client.reservation("slot", units=2) as held:
        assert (held.grant.pool, held.grant.units, held.grant.resource_id) == ("slot", 2, "")
        free = await other.check_availability("slot", units=2)
        assert (free.available, free.free_units, free.capacity, free.queue_position) == (False, 1, 3, 1)
        assert free.blocked_by is not None
        assert free.blocked_by.reason is RefusalReason.UNITS_TAKEN
        refusal = await refusal_of(other.reservation("slot", units=2))
        assert facts(refusal) == (RefusalReason.UNITS_TAKEN, "slot", "", None, 1)
        async with other.reservation("slot") as one:
            assert one.grant.units == 1
    free = await other.check_availability("slot", units=3)
    assert (free.available, free.free_units, free.queue_position, free.estimated_wait_s) == (True, 3, 0, 0.0)


async def test_an_id_within_a_pool_is_exclusive_too(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    async with client.reservation("slot", "a") as held:
        assert (held.grant.units, held.grant.pool) == (1, "slot")
        refusal = await refusal_of(other.reservation("slot", "a"))
        assert facts(refusal)[:3] == (RefusalReason.HELD, "slot/a", "w1")
        await take(other.reservation("slot", "b"))


# ---- permits


async def test_permits_are_settled_or_go_back(world: World) -> None:
    client = world.client("w1")
    assert (await client.remaining_capacity("post")).remaining == 3
    async with client.permit("post") as permit:
        assert 0 < permit.use_within_s <= 10
        assert (await client.remaining_capacity("post")).remaining == 2
        permit.response(200, {"x-rate-limit-remaining": "2"})
    assert (await client.remaining_capacity("post")).remaining == 2
    async with client.permit("post", 2) as permit:
        assert permit.grant.permits == 2
        assert (await client.remaining_capacity("post")).remaining == 0
        permit.not_sent()
    capacity = await client.remaining_capacity("post")
    assert capacity.remaining == 2
    assert [
        (each.name, each.window_s, each.limit, each.used, each.remaining) for each in capacity.windows
    ] == [
        ("per_15min", 900.0, 3, 1, 2),
        ("per_hour", 3600.0, 5, 1, 4),
    ]


async def test_a_block_that_raises_has_used_its_permit(world: World) -> None:
    client = world.client("w1")
    with pytest.raises(LookupError):
        async with client.permit("post"):
            raise LookupError
    assert (await client.remaining_capacity("post")).remaining == 2


async def test_a_full_window_is_named(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    await take(client.permit("post", 3))
    refusal = await refusal_of(other.permit("post"))
    assert facts(refusal) == (RefusalReason.WINDOW_FULL, "post", "", 900.0, 1)
    assert refusal.retry_after_s is not None
    assert 880 < refusal.retry_after_s < 902, "the daemon rounds up to a bucket of 1/500"


async def test_what_goes_back_is_given_to_those_who_wait(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    hold = Hold(client.permit, "post", 3)
    permit = await hold.granted()
    # Long enough for the window to move on: else the daemon refuses a wait that can't come to anything.
    waiting = Hold(other.permit, "post", 2, wait=1_000)
    place = await waiting.queued(1)
    assert place.blocked_by is not None
    assert (place.blocked_by.reason, place.blocked_by.window_s) == (RefusalReason.WINDOW_FULL, 900.0)
    permit.not_sent()
    await hold.end()
    assert (await waiting.granted()).grant.permits == 2
    await waiting.end()


async def test_violations_and_use_are_shown(world: World) -> None:
    client = world.client("w1")
    async with client.permit("post") as permit:
        permit.response(429)
    status = await client.system_status()
    [endpoint] = status.endpoints
    assert (endpoint.endpoint, endpoint.violations, endpoint.active_workers) == ("post", 1, 1)
    assert endpoint.health is status.health
    assert endpoint.utilisation == pytest.approx(1 / 3)
    allocation = await client.worker_allocation("post")
    assert [(each.name, each.allocated, each.used, each.remaining) for each in allocation.windows] == [
        ("per_15min", 3, 1, 2),
        ("per_hour", 5, 1, 4),
    ]
    assert allocation.active_workers == 1


# ---- bookings


async def test_a_booking_holds_its_time_and_is_claimed_when_it_has_come(world: World) -> None:
    client = world.client("w1")
    booking = await client.schedule("post", permits=2, not_before=1.0)
    assert booking.permits == 2
    assert 0.5 < booking.estimated_delay_s <= 1.1
    assert (booking.claim_until - booking.execute_at).total_seconds() == pytest.approx(60, abs=0.01)
    assert (await client.remaining_capacity("post")).remaining == 1
    refusal = await refusal_of(client.permit("post", booking_id=booking.booking_id))
    assert (refusal.reason, refusal.subject) == (RefusalReason.BOOKING_EARLY, "post")
    assert (refusal.window_s, refusal.queue_position) == (None, 0)
    assert (await refusal_of(client.permit("post", 2))).reason is RefusalReason.WINDOW_FULL
    claiming = asyncio.create_task(take(client.permit("post", booking_id=booking.booking_id, wait=WAIT_S)))

    async def is_claimed() -> bool:
        await client.remaining_capacity("post")
        return claiming.done()

    await world.until(is_claimed)
    assert (await claiming).grant.permits == 2
    assert (await client.remaining_capacity("post")).remaining == 1
    assert await client.cancel_schedule(booking.booking_id), "it has ended: claimed"
    with pytest.raises(BookingLapsed):
        await take(client.permit("post", booking_id=booking.booking_id))


async def test_an_early_booking_names_no_holder(world: World) -> None:
    client = world.client("w1")
    booking = await client.schedule("post", not_before=3600)
    refusal = await refusal_of(client.permit("post", booking_id=booking.booking_id))
    assert refusal.holder == "", "the proto: empty but for HELD and RECENTLY_ENGAGED"


async def test_a_booking_of_what_is_free_is_due_at_once(world: World) -> None:
    client = world.client("w1")
    booking = await client.schedule("post")
    assert (booking.permits, booking.estimated_delay_s) == (1, 0.0)
    async with client.permit("post", booking_id=booking.booking_id) as permit:
        permit.not_sent()
    assert (await client.remaining_capacity("post")).remaining == 3


async def test_a_booking_is_made_for_when_there_is_room(world: World) -> None:
    client = world.client("w1")
    await take(client.permit("post", 3))
    booking = await client.schedule("post", permits=2)
    assert 880 < booking.estimated_delay_s < 902
    later = await client.schedule("post", permits=3)
    assert 3580 < later.estimated_delay_s < 4900, "the hour is full until then"


async def test_a_cancelled_booking_gives_its_time_back(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    booking = await client.schedule("post", permits=3)
    with pytest.raises(NotHolder) as caught:
        await other.cancel_schedule(booking.booking_id)
    assert caught.value.reason == "NOT_HOLDER"
    assert not await client.cancel_schedule(booking.booking_id)
    assert await client.cancel_schedule(booking.booking_id)
    assert (await client.remaining_capacity("post")).remaining == 3
    with pytest.raises(BookingLapsed):
        await take(client.permit("post", booking_id=booking.booking_id))


async def test_a_far_booking_leaves_the_present_free(world: World) -> None:
    client = world.client("w1")
    booking = await client.schedule("post", permits=3, not_before=7200)
    await take(client.permit("post", 3))
    assert not await client.cancel_schedule(booking.booking_id)


# ---- lists


async def test_live_locks_come_in_pages_oldest_first(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    async with AsyncExitStack() as stack:
        for number in range(5):
            await stack.enter_async_context(client.lock(f"i{number}", kind="analysis"))
        await stack.enter_async_context(other.lock("theirs", kind="reply"))
        for page_size in (1, 2, 5, 6, 100):
            items = [each.item async for each in client.locks(page_size=page_size)]
            assert items == ["i0", "i1", "i2", "i3", "i4", "theirs"]
        mine = [each async for each in client.locks(worker="w1", page_size=2)]
        assert [each.item for each in mine] == ["i0", "i1", "i2", "i3", "i4"]
        assert sorted(mine, key=lambda each: each.fencing_token) == mine
        assert [each.kind async for each in client.locks(worker="w2")] == ["reply"]
        assert [each async for each in client.locks(worker="w3")] == []
    assert [each async for each in client.locks()] == []


async def test_live_reservations_come_in_pages_oldest_first(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    async with AsyncExitStack() as stack:
        for number in range(3):
            await stack.enter_async_context(client.reservation("memory", f"m{number}"))
        await stack.enter_async_context(other.reservation("slot", units=2))
        ids = [each.resource_id async for each in client.reservations(page_size=2)]
        assert ids == ["m0", "m1", "m2", ""]
        assert [each.units async for each in client.reservations(type="slot")] == [2]
        assert len([each async for each in client.reservations(worker="w1", page_size=2)]) == 3
        assert [each async for each in client.reservations(worker="w1", type="slot")] == []


# ---- errors


def _analysis(client: Client, item: str = "i", **options: Any) -> Any:
    return client.lock(item, kind="analysis", **options)


async def _all(entries: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in entries]


async def _unused(held: Any) -> None:
    held.unused(1)


@pytest.mark.parametrize(
    ("ask", "error", "reason"),
    [
        (lambda client: client.remaining_capacity("unheard-of"), InvalidRequest, "UNKNOWN_ENDPOINT"),
        (lambda client: take(client.permit("unheard-of")), InvalidRequest, "UNKNOWN_ENDPOINT"),
        (lambda client: take(client.permit("unheard-of", wait=5)), InvalidRequest, "UNKNOWN_ENDPOINT"),
        (lambda client: take(client.permit("post", 4)), OutOfRange, "PERMITS_ABOVE_LIMIT"),
        (lambda client: take(client.permit("post", 4, wait=5)), OutOfRange, "PERMITS_ABOVE_LIMIT"),
        (lambda client: client.schedule("post", permits=4), OutOfRange, "PERMITS_ABOVE_LIMIT"),
        (lambda client: take(client.reservation("slot", units=4)), OutOfRange, "UNITS_ABOVE_CAPACITY"),
        (
            lambda client: take(client.reservation("slot", units=4, wait=5)),
            OutOfRange,
            "UNITS_ABOVE_CAPACITY",
        ),
        (lambda client: client.check_availability("slot", units=4), OutOfRange, "UNITS_ABOVE_CAPACITY"),
        (lambda client: take(client.reservation("memory", "a", units=1)), InvalidRequest, "NO_POOL"),
        (lambda client: client.cancel_schedule(NEVER_GIVEN), NotFound, "UNKNOWN_ID"),
        (lambda client: take(client.permit("post", booking_id=NEVER_GIVEN)), NotFound, "UNKNOWN_ID"),
        (lambda client: take(_analysis(client, "")), InvalidRequest, "INVALID_ID"),
        (lambda client: take(_analysis(client, "x" * 513)), InvalidRequest, "INVALID_ID"),
        (lambda client: take(_analysis(client, "\u00e4" * 257)), InvalidRequest, "INVALID_ID"),
        (lambda client: take(_analysis(client, "a\nb")), InvalidRequest, "INVALID_ID"),
        (lambda client: take(_analysis(client, "a\u202eb", wait=5)), InvalidRequest, "INVALID_ID"),
        (lambda client: take(client.lock("i", kind="")), InvalidRequest, "INVALID_ID"),
        (lambda client: take(client.lock("i", kind="k" * 65)), InvalidRequest, "INVALID_ID"),
        (lambda client: client.get_lock(""), InvalidRequest, "INVALID_ID"),
        (lambda client: client.has_recent_engagement("i", kinds=[""]), InvalidRequest, "INVALID_ID"),
        (lambda client: client.engagement_stats(worker="\t"), InvalidRequest, "INVALID_ID"),
        (lambda client: client.remaining_capacity(""), InvalidRequest, "INVALID_ID"),
        (lambda client: take(client.permit("")), InvalidRequest, "INVALID_ID"),
        (lambda client: take(client.reservation("", "a")), InvalidRequest, "INVALID_ID"),
        (lambda client: take(client.reservation("memory", "x" * 513)), InvalidRequest, "INVALID_ID"),
        (lambda client: take(client.reservation("memory")), InvalidRequest, "INVALID_ID"),
        (lambda client: take(client.reservation("memory", wait=5)), InvalidRequest, "INVALID_ID"),
        (lambda client: take(client.reservation("memory", units=1)), InvalidRequest, "NO_POOL"),
        (lambda client: client.check_availability("memory"), InvalidRequest, "INVALID_ID"),
        (lambda client: take(_analysis(client, ttl=0)), InvalidRequest, "INVALID_DURATION"),
        (lambda client: take(_analysis(client, ttl=0.0999)), InvalidRequest, "INVALID_DURATION"),
        (lambda client: take(_analysis(client, ttl=86_400.001)), InvalidRequest, "INVALID_DURATION"),
        (lambda client: take(_analysis(client, wait=0.0009)), InvalidRequest, "INVALID_DURATION"),
        (lambda client: take(_analysis(client, wait=-1)), InvalidRequest, "INVALID_DURATION"),
        (lambda client: take(_analysis(client, wait=86_400.001)), InvalidRequest, "INVALID_DURATION"),
        (lambda client: take(client.permit("post", wait=90_000)), InvalidRequest, "INVALID_DURATION"),
        (lambda client: client.engagement_stats(within=0), InvalidRequest, "INVALID_DURATION"),
        (lambda client: client.schedule("post", not_before=90_000), InvalidRequest, "INVALID_DURATION"),
        (lambda client: client.schedule("post", not_before=-1), InvalidRequest, "INVALID_DURATION"),
        (lambda client: take(_analysis(client, quality=1.1)), InvalidRequest, "INVALID_QUALITY"),
        (lambda client: take(_analysis(client, quality=float("nan"))), InvalidRequest, "INVALID_QUALITY"),
        (lambda client: take(_analysis(client, quality=-0.1, wait=5)), InvalidRequest, "INVALID_QUALITY"),
        (lambda client: take(client.permit("post", -1)), InvalidRequest, "INVALID_COUNT"),
        (lambda client: _all(client.locks(page_size=1001)), InvalidRequest, "INVALID_PAGE"),
        (lambda client: take(client.reservation("slot"), _unused), InvalidRequest, "INVALID_COUNT"),
    ],
)
async def test_what_can_never_be_is_an_error(
    world: World, ask: Any, error: type[CoorddError], reason: str
) -> None:
    client = world.client("w1")
    with pytest.raises(error) as caught:
        await ask(client)
    assert type(caught.value) is error
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("options", "reason", "field"),
    [
        ({"worker_class": "x" * 65}, "INVALID_ID", "worker_class"),
        ({"weight": 0.0001}, "INVALID_COUNT", "weight"),
        ({"weight": float("nan")}, "INVALID_COUNT", "weight"),
        ({"labels": {"": "x"}}, "INVALID_ID", "labels"),
        ({"labels": {"x": "\n"}}, "INVALID_ID", "labels"),
        ({"labels": {str(number): "" for number in range(17)}}, "INVALID_COUNT", "labels"),
        ({"ttl": 0.5}, "INVALID_DURATION", "ttl"),
        ({"ttl": 3601}, "INVALID_DURATION", "ttl"),
    ],
)
async def test_a_session_that_can_not_be(world: World, options: Any, reason: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await take(world.client("w1").session(**options))
    assert (caught.value.reason, caught.value.metadata["field"]) == (reason, field)


async def test_a_session_keeps_short_leases_and_hears_what_is_taken(world: World) -> None:
    told: list[Revoked] = []
    client = world.client("w1")
    session = client.session(weight=2, labels={"zone": "a"}, on_revoked=told.append)

    async def work(session: HeldSession) -> None:
        assert session.is_connected
        assert session.weight == 2
        async with client.lock("i", kind="analysis", ttl=TTL_S) as lock:
            first = lock.grant.expires_at

            async def is_kept() -> bool:
                held = (await client.get_lock("i")).lock
                assert held is not None
                return (held.expires_at - first).total_seconds() > TTL_S

            await world.until(is_kept)
        holder = Hold(client.reservation, "slot", ttl=LONG_TTL_S)
        held = await holder.granted()
        await world.force_release(held.reservation_id)
        assert isinstance(await holder.failure(), LeaseLost)
        assert [(event.name, event.reason) for event in told] == [("slot", RevocationReason.FORCED)]

    await take(session, work)
    assert session.error is None


async def test_a_second_session_of_a_worker_is_refused_unless_it_takes_over(world: World) -> None:
    async def refused(_: HeldSession) -> None:
        with pytest.raises(SessionTaken):
            await take(world.client("w1").session())

    first = world.client("w1").session()

    async def taken(_: HeldSession) -> None:
        async def is_over() -> bool:
            return first.error is not None

        await take(world.client("w1").session(take_over=True), lambda _: world.until(is_over))
        assert isinstance(first.error, SessionTaken)

    async def both(_: HeldSession) -> None:
        await refused(_)
        await taken(_)

    await take(first, both)


@pytest.mark.parametrize("worker", ["", "w" * 129, "a\tb"])
async def test_a_workers_name_is_checked(world: World, worker: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await take(world.client(worker).lock("i", kind="analysis"))
    assert (caught.value.reason, caught.value.metadata["field"]) == ("INVALID_ID", "worker")


async def test_a_refused_form_says_what_and_which_bounds(world: World) -> None:
    client = world.client("w1")
    with pytest.raises(InvalidRequest) as caught:
        await take(client.lock("i", kind="analysis", ttl=0.05))
    assert str(caught.value) == "ttl is not within 100ms..24h [INVALID_DURATION]"
    assert caught.value.metadata == {
        "field": "ttl", "ns": "50000000", "ns_min": "100000000", "ns_max": "86400000000000"
    }  # fmt: skip
    for ask, message in (
        (take(client.lock("i", kind="analysis", wait=-1)), "wait_timeout is not within 1ms..24h"),
        (client.engagement_stats(within=0), "within is not within 1ns..3653d"),
        (client.schedule("post", not_before=-1), "not_before is not within 0s..24h"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await ask
        assert str(caught.value) == f"{message} [INVALID_DURATION]"
    with pytest.raises(InvalidRequest) as caught:
        await client.get_lock("x" * 513)
    assert str(caught.value) == "item is 513 bytes long, more than 512 [INVALID_ID]"
    assert caught.value.metadata == {"field": "item", "bytes": "513", "bytes_max": "512"}
    with pytest.raises(InvalidRequest) as caught:
        await take(client.lock("i", kind="analysis", quality=2))
    assert caught.value.metadata == {"field": "quality", "value": "2.0"}


async def test_the_shortest_and_the_longest_are_taken(world: World) -> None:
    client = world.client("w1")
    await take(client.lock("x" * 512, kind="analysis", ttl=86_400, quality=1, wait=86_400))
    await take(client.lock("i", kind="analysis", ttl=0.1, quality=0, wait=0.001))
