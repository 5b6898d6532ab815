"""What `client.bundle` does, told once and tried on two daemons: the real one, and the client's double."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from client_worlds import SCENARIO_CONFIG, DoubleWorld, Hold, RealWorld, World, scenario_double

from coordd.config import load
from coordd.server import Daemon
from coordd_client import (
    Client,
    InvalidRequest,
    ItemState,
    LeaseLost,
    Outcome,
    OutOfRange,
    RefusalReason,
    Refused,
    WaitTimeout,
    lock,
    not_engaged,
    permit,
    reservation,
    units,
)

WAIT_S = 60.0
TTL_S = 2.0


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


def everything(item: str = "i", kind: str = "analysis", ttl: float | None = None) -> tuple[Any, ...]:
    return (lock(item, kind=kind, ttl=ttl), permit("post"), units("slot", 2))


async def free(client: Client) -> tuple[ItemState, int, int]:
    """Return how the item i stands, and what is left of the pool and the endpoint."""
    status = await client.get_lock("i")
    slots = await client.check_availability("slot")
    return status.state, slots.free_units, (await client.remaining_capacity("post")).remaining


async def refusal_of(block: Any) -> Any:
    with pytest.raises(Refused) as caught:
        async with block:
            pytest.fail("it was granted")
    return caught.value.refusal


async def test_a_bundle_is_all_of_it_and_is_given_back_whole(world: World) -> None:
    client = world.client("w1")
    async with client.bundle(*everything(), not_engaged("i", within=3600)) as bundle:
        assert (bundle.lock.grant.item, bundle.permit.grant.endpoint) == ("i", "post")
        assert (bundle.reservation.units, len(bundle.locks), len(bundle.permits)) == (2, 1, 1)
        assert bundle.bundle_id > bundle.permit.permit_id
        assert 0 < bundle.left_s <= 900
        assert 0 < bundle.permit.use_within_s <= 10
        assert await free(client) == (ItemState.IN_PROGRESS, 1, 2)
        bundle.permit.response(200, {"x-ratelimit-remaining": "7"})
    assert bundle.left_s == bundle.permit.use_within_s == 0
    assert await free(client) == (ItemState.DONE, 3, 2)


@pytest.mark.parametrize(
    ("others", "reason", "subject"),
    [
        ((lock("i", kind="analysis"),), RefusalReason.HELD, "i"),
        ((units("slot", 2),), RefusalReason.UNITS_TAKEN, "slot"),
        ((permit("post", 3),), RefusalReason.WINDOW_FULL, "post"),
    ],
)
async def test_where_one_thing_is_missing_nothing_is_taken(
    world: World, others: tuple[Any, ...], reason: RefusalReason, subject: str
) -> None:
    client, other = world.client("w1"), world.client("w2")
    async with other.bundle(*others):
        before = await free(client)
        refusal = await refusal_of(client.bundle(*everything()))
        assert (refusal.reason, refusal.subject, refusal.queue_position) == (reason, subject, 1)
        assert await free(client) == before


async def test_a_condition_looks_at_the_past(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    async with other.lock("i", kind="analysis") as held:
        held.failed()
    async with client.bundle(permit("post"), not_engaged("i", within=3600)) as bundle:
        bundle.permit.not_sent()
    async with other.lock("i", kind="analysis"):
        pass
    refusal = await refusal_of(client.bundle(permit("post"), not_engaged("i", within=3600), wait=WAIT_S))
    assert (refusal.reason, refusal.holder) == (RefusalReason.RECENTLY_ENGAGED, "w2")
    async with client.bundle(permit("post"), not_engaged("i", within=3600, kinds=["reply"])):
        pass


async def test_each_lock_and_each_permit_may_be_spoken_for(world: World) -> None:
    client = world.client("w1")

    async def work() -> None:
        async with client.bundle(
            *(lock(item, kind="analysis") for item in "abc"), permit("post", 2)
        ) as bundle:
            first, second, _ = bundle.locks
            first.succeeded()
            second.unknown()
            bundle.permit.not_sent()
            with pytest.raises(LookupError, match="3 locks"):
                _ = bundle.lock
            with pytest.raises(LookupError, match="0 reservations"):
                _ = bundle.reservation
            raise LookupError("as it was raised")

    with pytest.raises(LookupError, match="as it was raised"):
        await work()
    outcomes = [await client.has_recent_engagement(item, include_failures=True) for item in "abc"]
    assert [outcome and outcome.outcome for outcome in outcomes] == [
        Outcome.SUCCESS,
        Outcome.UNKNOWN,
        Outcome.FAILURE,
    ]
    assert (await client.remaining_capacity("post")).remaining == 3


@pytest.mark.parametrize(
    ("says", "outcome"),
    [("succeeded", Outcome.SUCCESS), ("failed", Outcome.FAILURE), ("unknown", Outcome.UNKNOWN)],
)
async def test_what_is_said_of_a_bundle_is_said_of_every_lock(
    world: World, says: str, outcome: Outcome
) -> None:
    client = world.client("w1")
    async with client.bundle(lock("a", kind="analysis"), lock("b", kind="analysis")) as bundle:
        getattr(bundle, says)()
    for item in "ab":
        latest = await client.has_recent_engagement(item, include_failures=True)
        assert latest is not None
        assert latest.outcome is outcome


async def test_a_bundle_waits_holding_nothing_and_is_granted_whole(world: World) -> None:
    client, other, small = world.client("w1"), world.client("w2"), world.client("w3")
    held = Hold(other.lock, "i", kind="analysis")
    await held.granted()
    waiting = Hold(client.bundle, *everything(), wait=WAIT_S)
    place = await waiting.queued()
    assert place.blocked_by is not None
    assert (place.blocked_by.reason, place.blocked_by.holder) == (RefusalReason.HELD, "w2")
    async with small.reservation("slot", units=3):
        pass
    await held.end()
    bundle = await waiting.granted()
    assert len(bundle.permits) == 1
    await waiting.end()
    assert (await free(client))[:2] == (ItemState.DONE, 3)


async def test_a_wait_that_is_cancelled_or_over_leaves_nothing(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    held = Hold(other.lock, "i", kind="analysis")
    await held.granted()
    waiting = Hold(client.bundle, *everything(), wait=WAIT_S)
    await waiting.queued()
    await waiting.cancel()
    brief = Hold(client.bundle, *everything(), wait=0.05)
    await world.until(brief.has_ended)
    assert isinstance(await brief.failure(), WaitTimeout)
    await held.end()
    assert await free(client) == (ItemState.DONE, 3, 3)


async def test_a_bundle_renews_itself(world: World) -> None:
    client = world.client("w1")
    async with client.bundle(*everything(ttl=TTL_S)) as bundle:
        granted_left_s = bundle.left_s

        async def has_been_renewed() -> bool:
            status = await client.get_lock("i")
            assert status.lock is not None, "it has run out"
            return status.lock.expires_at > bundle.lock.grant.expires_at

        await world.until(has_been_renewed)
        assert granted_left_s <= TTL_S
    assert (await free(client))[0] is ItemState.DONE


async def test_one_lost_lease_ends_the_block_and_gives_the_rest_back(world: World) -> None:
    client = world.client("w1")
    hold = Hold(
        client.bundle, lock("a", kind="analysis"), lock("i", kind="analysis", ttl=TTL_S), units("slot", 2)
    )
    bundle = await hold.granted()
    await world.force_release(bundle.locks[1].fencing_token)
    await world.until(hold.has_ended)
    assert isinstance(await hold.failure(), LeaseLost)
    assert await free(client) == (ItemState.UNKNOWN, 3, 3)
    latest = await client.has_recent_engagement("a", include_failures=True)
    assert latest is not None
    assert latest.outcome is Outcome.FAILURE


async def test_an_operator_takes_all_of_a_bundle(world: World) -> None:
    client = world.client("w1")
    hold = Hold(client.bundle, lock("i", kind="analysis", ttl=TTL_S), units("slot", 2))
    bundle = await hold.granted()
    await world.force_release(bundle.bundle_id)
    await world.until(hold.has_ended)
    assert isinstance(await hold.failure(), LeaseLost)
    assert await free(client) == (ItemState.UNKNOWN, 3, 3)


async def test_what_can_never_be_had_is_a_mistake(world: World) -> None:
    client = world.client("w1")
    for claims, reason, error in (
        ((lock("i", kind="analysis"), lock("i", kind="analysis")), "DUPLICATE_CLAIM", InvalidRequest),
        ((units("slot"), units("slot")), "DUPLICATE_CLAIM", InvalidRequest),
        ((permit("post", 4),), "PERMITS_ABOVE_LIMIT", OutOfRange),
        ((units("slot", 4),), "UNITS_ABOVE_CAPACITY", OutOfRange),
        ((permit("nowhere"),), "UNKNOWN_ENDPOINT", InvalidRequest),
        ((), "INVALID_COUNT", InvalidRequest),
        ((lock("", kind="analysis"),), "INVALID_ID", InvalidRequest),
        (tuple(lock(f"i{n}", kind="analysis") for n in range(17)), "INVALID_COUNT", InvalidRequest),
        ((permit("post"), not_engaged("i", within=0)), "INVALID_DURATION", InvalidRequest),
    ):
        with pytest.raises(error) as caught:
            async with client.bundle(*claims):
                pytest.fail("it was granted")
        assert caught.value.reason == reason
    assert await free(client) == (ItemState.FREE, 3, 3)
    not_a_claim: Any = "i"
    with pytest.raises(TypeError, match="a bundle takes"):
        client.bundle(not_a_claim)


async def test_a_bundle_of_permits_has_no_lease_to_lose(world: World) -> None:
    client = world.client("w1")
    async with client.bundle(permit("post")) as bundle:
        assert bundle.left_s == float("inf")
        assert "left inf s" in repr(bundle)
    assert (await client.remaining_capacity("post")).remaining == 2


async def test_a_block_says_what_it_holds(world: World) -> None:
    client = world.client("w1")
    block = client.bundle(*everything())
    assert repr(block) == "HeldBundle(lock 'i', permit 'post', reservation 'slot', not held yet)"
    with pytest.raises(RuntimeError):
        _ = block.locks
    async with block as bundle:
        assert repr(bundle.lock) == f"BundledLock('i', kind='analysis', token={bundle.lock.fencing_token})"
        assert repr(bundle.permit) == f"BundledPermit('post', id={bundle.permit.permit_id})"
    with pytest.raises(RuntimeError, match="only once"):
        async with block:
            pytest.fail("it was entered twice")


async def test_a_bundle_and_its_parts_are_one_to_others(world: World) -> None:
    client, other = world.client("w1"), world.client("w2")
    async with client.bundle(lock("i", kind="analysis"), reservation("slot", "x")):
        assert (await refusal_of(other.lock("i", kind="analysis"))).holder == "w1"
        assert [each.item async for each in other.locks(worker="w1")] == ["i"]
