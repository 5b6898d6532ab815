"""The real daemon, stopped in its tracks (SIGSTOP) while clients work, and let go on."""

import asyncio
import signal
import time

import grpc
import pytest
from crash_daemon import KIND, Daemon
from crash_rig import Fleet, duration
from crash_work import all_is_well, more, work

from coordd.v1 import engagement_pb2

TTL_S = 1


async def test_leases_go_on_while_it_stands_still_and_nobody_is_told_otherwise(
    daemon: Daemon, fleet: Fleet
) -> None:
    await work(daemon, fleet)
    assert fleet.stubs is not None
    services = fleet.stubs.engagement
    held = await fleet.take_lock("holder", "paused", ttl_s=TTL_S)
    assert held is not None
    renewal = {"item": "paused", "worker": "holder", "fencing_token": held.id}
    daemon.signal(signal.SIGSTOP)
    # Both are on their way before the lease is over, and read after it.
    renewed = asyncio.create_task(
        services.RenewLock(engagement_pb2.RenewLockRequest(**renewal, ttl=duration(600)))
    )
    next_one = asyncio.create_task(
        services.RequestLock(
            engagement_pb2.RequestLockRequest(item="paused", worker="next", kind=KIND, ttl=duration(600))
        )
    )
    await asyncio.sleep(held.told_at + TTL_S - time.monotonic())
    daemon.signal(signal.SIGCONT)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await renewed
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    lock = (await next_one).granted
    assert lock.fencing_token > held.id
    engagement = (await services.GetLock(engagement_pb2.GetLockRequest(item="paused"))).last_engagement
    assert engagement.outcome == engagement_pb2.OUTCOME_UNKNOWN
    assert engagement.fencing_token == held.id
    await more(fleet)
    await all_is_well(daemon, fleet)
