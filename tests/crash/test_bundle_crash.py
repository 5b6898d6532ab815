"""The real daemon, killed at random points while workers take bundles: its file has all of each, or none."""

import asyncio
import json
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import crash_audit as audit
import pytest
from crash_daemon import CAPACITY, KIND, Daemon
from crash_history import engaged, held, settled, violations
from crash_rig import Fleet, Held, Journal, duration, last

from coordd.v1 import bundle_pb2, rate_limit_pb2

ROUNDS = 8
WORKERS = 14
TTL_S = 600


class BundleFleet(Fleet):
    """Workers that want an item, units and mostly a permit at once, and give them back at once."""

    def start(self) -> None:
        """Set everybody to work."""
        self._tasks = [
            asyncio.create_task(self._work(f"w{index}", self._take_bundle)) for index in range(WORKERS)
        ]

    async def _take_bundle(self, worker: str) -> None:
        asked_at, request_id = time.monotonic(), self.request_id()
        wait = bundle_pb2.AwaitBundleRequest(
            worker=worker,
            claims=self._claims(),
            request_id=request_id,
            wait_timeout=duration(self.random.uniform(0.01, 3)),
        )
        result = await self._ask(
            lambda stubs: last(stubs.bundle.AwaitBundle(wait)), TTL_S, (worker, request_id)
        )
        if result is None:
            return
        bundle = result.granted
        assert (len(bundle.locks), len(bundle.reservations)) == (1, 1), "a part"
        told = (worker, request_id, asked_at, time.monotonic(), TTL_S)
        lock = Held(bundle.locks[0].fencing_token, bundle.locks[0].item, *told)
        slot = Held(bundle.reservations[0].reservation_id, "small", *told)
        self.journal.locks.append(lock)
        self.journal.slots.extend([slot] * bundle.reservations[0].units)
        for name in (lock.id, slot.id, bundle.bundle_id, *(permit.permit_id for permit in bundle.permits)):
            self.journal.ids.append((name, asked_at, lock.told_at))
        await self._pause(0.01)
        used_at = time.time_ns()
        used = [p for p in bundle.permits if used_at < p.use_by.ToNanoseconds()]
        self.journal.uses.extend([used_at] * len(used))
        await self._release(bundle, worker, lock, slot)

    def _claims(self) -> list[bundle_pb2.Claim]:
        item = f"item:{self.random.randrange(6)}"
        lock = bundle_pb2.LockClaim(item=item, kind=KIND, ttl=duration(TTL_S))
        slot = bundle_pb2.ReservationClaim(type="slot", units=self.random.randint(1, 2), ttl=duration(TTL_S))
        claims = [bundle_pb2.Claim(lock=lock), bundle_pb2.Claim(reservation=slot)]
        if self.random.random() < 0.7:
            claims.append(bundle_pb2.Claim(permit=bundle_pb2.PermitClaim(endpoint="post")))
        return claims

    async def _release(self, bundle: Any, worker: str, lock: Held, slot: Held) -> None:
        lock.outcome = self.random.choice((1, 2))
        lock.returning_at = slot.returning_at = time.monotonic()
        release = bundle_pb2.ReleaseBundleRequest(
            bundle_id=bundle.bundle_id,
            worker=worker,
            outcomes=[bundle_pb2.LockOutcome(fencing_token=lock.id, outcome=lock.outcome)],  # type: ignore[arg-type]
            usages=[
                bundle_pb2.PermitUsage(
                    permit_id=permit.permit_id,
                    endpoint="post",
                    result=rate_limit_pb2.USAGE_RESULT_SUCCESS,
                )
                for permit in bundle.permits
            ],
        )
        reply = await self.call(lambda stubs: stubs.bundle.ReleaseBundle(release))
        # Also of a release whose answer was lost, and that is sent again after a restart.
        assert [entry.outcome for entry in reply.engagements] == [lock.outcome]
        lock.returned_at = slot.returned_at = time.monotonic()


class OnDisk:
    """What the file says right after a kill."""

    def __init__(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            self.locks = _ids(connection, "SELECT token FROM locks")
            self.reservations = _ids(connection, "SELECT id FROM reservations")
            self.permits = _ids(connection, "SELECT id FROM permits")
            self.bundles = {
                name: set(json.loads(members))
                for name, members in connection.execute("SELECT id, members FROM bundles")
            }
            [(self.units,)] = connection.execute("SELECT coalesce(sum(units), 0) FROM reservations")

    def parts(self) -> list[int]:
        """Return the bundles of which not all is there."""
        return [
            name
            for name, members in self.bundles.items()
            if len(members & self.locks) != 1
            or len(members & self.reservations) != 1
            or not members <= self.locks | self.reservations | self.permits
        ]

    def leaked(self) -> set[int]:
        """Return locks and reservations of no bundle: every one was taken in one."""
        return (self.locks | self.reservations) - set().union(*self.bundles.values())


def _ids(connection: sqlite3.Connection, sql: str) -> set[int]:
    return {name for (name,) in connection.execute(sql)}


@pytest.fixture
async def fleet(random: Random) -> AsyncIterator[BundleFleet]:
    fleet = BundleFleet(random)
    yield fleet
    await fleet.close()


@pytest.mark.timeout(150)
async def test_all_of_a_bundle_survives_or_none_of_it_and_nothing_leaks(
    daemon: Daemon, fleet: BundleFleet
) -> None:
    journal, random, seen = fleet.journal, fleet.random, 0
    fleet.start()
    for _ in range(ROUNDS):
        await daemon.launch()
        await daemon.serving()
        fleet.connect(daemon.address)
        assert fleet.stubs is not None
        assert await audit.lost_after_restart(fleet.stubs, journal) == []
        fleet.go_on()
        await asyncio.sleep(random.uniform(0.05, 1.0))
        fleet.check()
        fleet.disconnect()
        assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
        fleet.recorder.add(held(daemon.path))
        on_disk = OnDisk(daemon.path)
        assert on_disk.parts() == []
        assert on_disk.leaked() == set()
        assert on_disk.units <= CAPACITY
        seen += len(on_disk.bundles)
    await daemon.launch()
    await daemon.serving()
    fleet.connect(daemon.address)
    fleet.go_on()
    await fleet.stop()
    instant = await settled(fleet.stubs)
    assert await daemon.end(signal.SIGTERM) == 0

    fleet.recorder.add(engaged(daemon.path, *instant))
    fleet.recorder.add(held(daemon.path))
    assert [str(violation) for violation in violations(fleet.recorder, daemon)] == []
    _audit(journal)
    records = audit.Records(daemon.path)
    assert records.granted_though_refused(journal.refused) == []
    assert records.wrongly_ended(journal.locks) == []
    on_disk = OnDisk(daemon.path)
    assert (on_disk.locks, on_disk.reservations, on_disk.bundles) == (set(), set(), {})
    # And there was something to go wrong.
    assert seen > 0
    assert journal.repeats >= ROUNDS


def _audit(journal: Journal) -> None:
    assert audit.held_by_two(journal.locks) == []
    assert audit.units_above_capacity(journal.slots) <= 0
    assert audit.given_twice(journal.ids) == []
    assert audit.over_issued(journal.uses) == []
