"""The Python client and the daemon as a process: crashes, restarts, operators, and a daemon that hangs."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from client_worlds import (
    PATIENT,
    SCENARIO_CONFIG,
    Hold,
    RealWorld,
    RecordingTransport,
    RestartableDaemon,
    SteppedClock,
)
from daemon_api import BIN

from coordd.v1 import admin_pb2
from coordd_client import (
    Client,
    Config,
    DeadlineExceeded,
    ItemState,
    LeaseLost,
    Outcome,
    Refused,
    Unavailable,
)

TTL_S = 1.0
# More than a test can last.
LONG_TTL_S = 600.0
WAIT_S = 50.0
RENEW = "/coordd.v1.EngagementService/RenewLock"
# Gives up soon, where nobody is there.
HASTY = Config(call_timeout_s=0.3, backoff_s=0.02)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[RestartableDaemon]:
    """The daemon as a process."""
    config = tmp_path / "coordd.toml"
    config.write_text(SCENARIO_CONFIG.format(path=tmp_path / "data" / "coordd.db"))
    daemon = await RestartableDaemon.start(config)
    yield daemon
    await daemon.kill()


@pytest.fixture
async def world(daemon: RestartableDaemon) -> AsyncIterator[RealWorld]:
    """Clients of that process."""
    async with AsyncExitStack() as stack:
        yield RealWorld(daemon.address, stack)


async def test_a_crash_in_the_middle_keeps_the_lease_the_places_and_their_order(
    daemon: RestartableDaemon, world: RealWorld
) -> None:
    names: list[str] = []
    holder = Hold(world.client("holder").lock, "i", kind="analysis", names=names)
    token = (await holder.granted()).fencing_token
    waits = []
    for position, worker in enumerate(("first", "second"), 1):
        waits.append(Hold(world.client(worker).lock, "i", kind="analysis", wait=WAIT_S, names=names))
        await waits[-1].queued(position)
    told = [len(wait.places) for wait in waits]
    await daemon.kill()
    await daemon.start_again()

    async def are_back() -> bool:
        return all(len(wait.places) > before for wait, before in zip(waits, told, strict=True))

    await world.until(are_back)
    first, second = waits
    await first.queued(1)
    await second.queued(2)
    lock = (await world.client("onlooker").get_lock("i")).lock
    assert lock is not None
    assert lock.fencing_token == token
    for each in (holder, first, second):
        await each.granted()
        await each.end()
    assert names == ["holder", "first", "second"]
    stats = await world.client("onlooker").engagement_stats()
    assert (stats.total, stats.successful) == (3, 3)


async def test_a_lease_is_renewed_across_a_restart(daemon: RestartableDaemon, world: RealWorld) -> None:
    transport = RecordingTransport(daemon.address)
    async with Client(worker="w1", config=PATIENT, transport=transport) as client:
        hold = Hold(client.lock, "i", kind="analysis", ttl=10 * TTL_S)
        held = await hold.granted()
        await daemon.kill()
        await daemon.start_again()
        before = transport.paths.count(RENEW)
        ends = held.left_s

        async def is_renewed() -> bool:
            return transport.paths.count(RENEW) > before and held.left_s > ends

        await world.until(is_renewed)
        await hold.end()
    latest = await world.client("w2").has_recent_engagement("i")
    assert latest is not None
    assert (latest.outcome, latest.worker) == (Outcome.SUCCESS, "w1")


async def test_a_block_that_ends_while_the_daemon_is_down_gives_back_when_it_is_up(
    daemon: RestartableDaemon, world: RealWorld
) -> None:
    client = world.client("w1")
    hold = Hold(client.lock, "i", kind="analysis")
    await hold.granted()
    permit = Hold(client.permit, "post", 2)
    (await permit.granted()).not_sent()
    await daemon.kill()
    ending = asyncio.gather(hold.end(), permit.end())
    await daemon.start_again()
    await ending
    assert (await client.get_lock("i")).state is ItemState.DONE
    assert (await client.remaining_capacity("post")).remaining == 3


async def test_a_call_that_finds_nobody_tries_again(daemon: RestartableDaemon, world: RealWorld) -> None:
    client = world.client("w1")
    await daemon.kill()
    asking = asyncio.create_task(client.get_lock("i"))
    hold = Hold(client.lock, "i", kind="analysis", wait=WAIT_S)
    async with Client(daemon.address, worker="w2", config=HASTY) as hasty:
        with pytest.raises(Unavailable):
            await hasty.get_lock("i")
    await daemon.start_again()
    await asking
    await hold.granted()
    await hold.end()


async def test_a_draining_daemon_is_asked_again_until_it_grants(world: RealWorld) -> None:
    client = world.client("w1")
    await world.api.admin.Drain(admin_pb2.DrainRequest(reason="test"))
    transport = RecordingTransport(world.address)
    async with Client(worker="w2", transport=transport, config=PATIENT) as other:
        hold = Hold(other.lock, "i", kind="analysis")
        wait = Hold(other.lock, "j", kind="analysis", wait=WAIT_S)

        async def has_tried_both() -> bool:
            return len(set(transport.paths)) == 2

        await world.until(has_tried_both)
        assert (await client.get_lock("i")).state is ItemState.FREE
        await world.api.admin.Drain(admin_pb2.DrainRequest(undo=True))
        await hold.granted()
        await wait.granted()
        await hold.end()
        await wait.end()


async def test_coordctl_force_release_stops_the_work(daemon: RestartableDaemon, world: RealWorld) -> None:
    clock = SteppedClock()
    client, other = world.client("w1", clock), world.client("w2")
    hold = Hold(client.lock, "i", kind="analysis", ttl=LONG_TTL_S)
    token = (await hold.granted()).fencing_token
    wait = Hold(other.lock, "i", kind="analysis", wait=WAIT_S)
    await wait.queued(1)
    command = [str(BIN / "coordctl"), "--address", daemon.address]
    command += ["force-release", str(token), "--reason", "stuck"]
    coordctl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    await coordctl.communicate()
    assert coordctl.returncode == 0
    assert (await wait.granted()).fencing_token > token
    clock.advance(LONG_TTL_S / 3)
    assert isinstance(await hold.failure(), LeaseLost)
    assert hold.was_cancelled
    latest = await client.has_recent_engagement("i")
    assert latest is not None
    assert (latest.outcome, latest.worker) == (Outcome.UNKNOWN, "w1")
    await wait.end()


async def test_renewal_stops_with_the_block(world: RealWorld) -> None:
    clock = SteppedClock()
    transport = RecordingTransport(world.address)
    witness = RecordingTransport(world.address)

    async def renew(*who: RecordingTransport) -> None:
        before = [each.paths.count(RENEW) for each in who]
        clock.advance(LONG_TTL_S / 3)

        async def have_renewed() -> bool:
            return all(each.paths.count(RENEW) > count for each, count in zip(who, before, strict=True))

        await world.until(have_renewed)

    async with (
        Client(worker="w1", transport=transport, clock=clock) as client,
        Client(worker="w2", transport=witness, clock=clock) as other,
        other.lock("other", kind="analysis", ttl=LONG_TTL_S),
    ):
        async with client.lock("i", kind="analysis", ttl=LONG_TTL_S):
            await renew(transport, witness)
            await renew(transport, witness)
        renewed = transport.paths.count(RENEW)
        for _ in range(4):
            await renew(witness)
        assert transport.paths.count(RENEW) == renewed


async def test_work_stops_before_a_lease_that_nobody_answers_for_can_end(
    daemon: RestartableDaemon, world: RealWorld
) -> None:
    clock = SteppedClock()
    hold = Hold(world.client("w1", clock).lock, "i", kind="analysis", ttl=TTL_S)
    held = await hold.granted()
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        clock.advance(0.95 * held.left_s)
        failure = await hold.failure()
        assert isinstance(failure, LeaseLost)
        assert hold.was_cancelled
        assert 0 < hold.left_s < TTL_S / 2, "it was stopped with time in hand"
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    client = world.client("w2")

    async def has_run_out() -> bool:
        return (await client.get_lock("i")).state is ItemState.UNKNOWN

    await world.until(has_run_out)


async def test_a_grant_that_nobody_heard_of_goes_back(daemon: RestartableDaemon, world: RealWorld) -> None:
    async with Client(daemon.address, worker="w1", config=HASTY) as client:
        await client.get_lock("i")
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded):
                async with client.lock("i", kind="analysis"):
                    pytest.fail("nobody granted it")
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
    status = await world.client("w2").get_lock("i")
    assert (status.state, status.lock) == (ItemState.FREE, None)
    async with world.client("w2").lock("i", kind="reply"):
        pass


async def test_clients_that_race_keep_what_they_are_granted_one_at_a_time(world: RealWorld) -> None:
    # A client closes its stream as soon as it has read the grant, which must not take the grant back.
    inside, most, done, tokens = 0, 0, 0, list[int]()

    async def work(client: Client) -> None:
        nonlocal inside, most, done
        for _ in range(5):
            async with client.lock("i", kind="analysis", wait=WAIT_S) as lock:
                inside += 1
                most = max(most, inside)
                tokens.append(lock.fencing_token)
                await client.get_lock("i")
                inside -= 1
                done += 1

    await asyncio.gather(*(work(world.client(f"w{number}")) for number in range(4)))
    assert (most, done) == (1, 20)
    assert tokens == sorted(tokens)


async def test_what_a_callback_raises_leaves_no_waiter_behind(world: RealWorld) -> None:
    def give_up(_: object) -> None:
        raise LookupError("too long a queue")

    client, other = world.client("w1"), world.client("w2")
    async with client.lock("i", kind="analysis"):
        with pytest.raises(LookupError, match="too long"):
            async with other.lock("i", kind="analysis", wait=WAIT_S, on_queued=give_up):
                pytest.fail("it is held")
        await other.close()
        status = await world.api.admin.GetStatus(admin_pb2.GetStatusRequest())
        assert (status.waiters, status.waiters_away) == (0, 0)
        with pytest.raises(Refused):
            async with client.lock("i", kind="analysis"):
                pytest.fail("it is held")
