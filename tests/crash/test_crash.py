"""The real daemon, killed at random points under load and started again on the same file, over and over."""

import asyncio
import signal
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import crash_audit as audit
import pytest
from crash_daemon import KIND, LIMIT, Daemon
from crash_history import held
from crash_rig import Fleet, Held, duration, last
from crash_work import all_is_well

from coordd.v1 import engagement_pb2

ROUNDS = 15


class Queue:
    """Three who wait for an item in their order, by request id, and a holder."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet = fleet
        self._item = f"queue:{name}"
        self._holder: Held | None = None
        self._request_ids = {f"{name}-{place}": fleet.request_id() for place in (1, 2, 3)}

    async def form(self) -> None:
        """Take the item, and let the three wait until each was told its place."""
        self._holder = await self._fleet.take_lock(f"holder-{self._item}", self._item, ttl_s=600)
        assert self._holder is not None
        for place, worker in enumerate(self._request_ids, start=1):
            stream = self._stream(worker)
            assert (await anext(stream)).queued.position == place

    async def go_on(self) -> None:
        """Let a stranger ask and the three come back in reverse, after a restart; see who is served when."""
        assert self._holder is not None
        served: list[str] = []
        streams = {worker: self._stream(worker) for worker in ["stranger", *reversed(self._request_ids)]}
        for stream in streams.values():
            # Those who are not back hold nobody up, so each comes before those who have come back behind it.
            assert (await anext(stream)).queued.position == 1
        tasks = [asyncio.create_task(self._serve(worker, streams[worker], served)) for worker in streams]
        await self._fleet.release_lock(self._holder)
        await asyncio.gather(*tasks)
        assert served == [*self._request_ids, "stranger"]

    def _stream(self, worker: str) -> AsyncIterator[Any]:
        assert self._fleet.stubs is not None
        request = engagement_pb2.AwaitLockRequest(
            item=self._item,
            worker=worker,
            kind=KIND,
            request_id=self._request_ids.get(worker, ""),
            wait_timeout=duration(60),
        )
        return aiter(self._fleet.stubs.engagement.AwaitLock(request))

    async def _serve(self, worker: str, stream: AsyncIterator[Any], served: list[str]) -> None:
        lock = (await last(stream)).granted
        served.append(worker)
        assert self._fleet.stubs is not None
        await self._fleet.stubs.engagement.ReleaseLock(
            engagement_pb2.ReleaseLockRequest(
                item=self._item, worker=worker, fencing_token=lock.fencing_token, outcome=1
            )
        )


async def _start(daemon: Daemon, random: Random) -> None:
    """Start the daemon; one time in three it is killed while it starts, first."""
    await daemon.launch()
    if random.random() < 1 / 3:
        await asyncio.sleep(random.uniform(0, 0.5))
        await daemon.end(signal.SIGKILL)
        await daemon.launch()
    await daemon.serving()


@pytest.mark.timeout(150)
async def test_what_was_acknowledged_survives_and_nothing_is_given_twice(
    daemon: Daemon, fleet: Fleet
) -> None:
    journal, random = fleet.journal, fleet.random
    queue: Queue | None = None
    fleet.start()
    for number in range(ROUNDS):
        await _start(daemon, random)
        fleet.connect(daemon.address)
        assert fleet.stubs is not None
        assert await audit.lost_after_restart(fleet.stubs, journal) == []
        fleet.go_on()
        if queue is not None:
            await queue.go_on()
        queue = Queue(fleet, str(number))
        await queue.form()
        await asyncio.sleep(random.uniform(0.05, 1.0))
        fleet.check()
        fleet.disconnect()
        assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
        fleet.recorder.add(held(daemon.path))
    await _start(daemon, random)
    fleet.connect(daemon.address)
    fleet.go_on()
    await all_is_well(daemon, fleet)
    # And there was something to go wrong.
    assert journal.repeats >= ROUNDS
    assert len(journal.uses) > LIMIT
    assert len(journal.refused) > 0
    assert any(held.returned_at is not None for held in journal.locks)
