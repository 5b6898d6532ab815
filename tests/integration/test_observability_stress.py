"""What is shown when something is wrong, or large: a disk that stands still, a namespace without a store."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from daemon_api import Api, refusal
from namespace_api import fleets, in_namespace
from observed import METRICS, Observed, samples, spelled

from coordd.config import load
from coordd.server import Daemon
from coordd.v1 import engagement_pb2


class Standstill:
    """A store whose next commits wait until they may go on."""

    def __init__(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._commit = store.commit
        self.has_begun, self.may_end = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(store, "commit", self.commit)

    async def commit(self, batch: Any) -> None:
        self.has_begun.set()
        await self.may_end.wait()
        await self._commit(batch)


async def test_a_disk_that_stands_still_is_seen_by_a_scrape_and_then_told(
    observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Standstill(observed.daemon.engine.store, monkeypatch)
    observed.time.stop()
    asking = asyncio.ensure_future(observed.api.lock())
    await disk.has_begun.wait()
    during = await observed.scrape()
    assert during["calls_under_way{RequestLock,EngagementService}"] == 1
    assert during["locks"] == 1, "a scrape shows memory, durable or not"
    assert "commit_duration_seconds_count" not in during
    observed.time.advance(2)
    with structlog.testing.capture_logs() as logs:
        disk.may_end.set()
        await asking
    after = await observed.scrape()
    assert (after["commit_duration_seconds_count"], after["commit_duration_seconds_sum"]) == (1, 2)
    [slow] = [line for line in logs if line["event"] == "slow commit"]
    assert (slow["ms"], slow["commands"], slow["namespace"]) == (2_000, 1, "default")


def steps(work: Callable[[], object]) -> int:
    """Return how many functions some work calls."""
    count = 0

    def called(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


async def test_a_scrape_takes_as_many_steps_however_much_is_held(observed: Observed) -> None:
    metrics = observed.daemon.telemetry._metrics
    assert metrics is not None

    async def hold(first: int, last: int) -> int:
        for number in range(first, last):
            await observed.api.lock(item=f"i{number}")
            await observed.api.reserve("conversation", resource_id=f"r{number}")
            stream = observed.api.await_lock(f"w{number}", f"i{number}", request_id=f"r{number}")
            assert (await stream.read()).HasField("queued")
        metrics.scrape()  # lets windows roll
        return steps(metrics.scrape)

    observed.time.stop()
    few = await hold(0, 2)
    assert await hold(2, 40) == few


async def test_each_namespace_is_counted_for_itself_and_one_without_a_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "blue.db").mkdir()
    blue = f'[store]\npath = "{tmp_path}/blue.db"\n'
    daemon = Daemon(load(fleets(tmp_path, blue, METRICS), {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        await Api(channel).lock()
        with pytest.raises(grpc.aio.AioRpcError):
            await in_namespace(channel, "blue").lock()
    shown = {
        spelled(each, frozenset()): each.value for each in await samples(daemon.telemetry.metrics_address)
    }
    await daemon.stop(0)
    assert shown["locks{default}"] == shown["store_failed{blue}"] == 1
    assert shown["store_failed{default}"] == shown["locks{blue}"] == 0
    assert shown["decisions_total{request_lock,default,granted}"] == 1
    assert shown["call_failures_total{UNAVAILABLE,STORE_FAILED}"] == 1


async def test_two_namespaces_have_series_of_their_own(tmp_path: Path) -> None:
    daemon = Daemon(load(fleets(tmp_path, more=METRICS), {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        blue = in_namespace(channel, "blue")
        await blue.lock()
        request = engagement_pb2.RequestLockRequest(item="i", worker="w2", kind="analysis")
        assert (await blue.engagement.RequestLock(request)).HasField("refused")
        await Api(channel).lock()
    shown = {
        spelled(each, frozenset()): each.value for each in await samples(daemon.telemetry.metrics_address)
    }
    await daemon.stop(0)
    granted = {name: value for name, value in shown.items() if name.startswith("acquisition_seconds_count")}
    assert granted == {
        "acquisition_seconds_count{lock,blue}": 1,
        "acquisition_seconds_count{lock,default}": 1,
    }
    assert shown["conflicts_total{lock,blue,held}"] == 1
    assert shown["endpoint_window_limit_permits{only_in_blue,blue,900s}"] == 2
    assert shown["pool_capacity_units{blue,small}"] == 1


async def test_calls_refused_for_overload_are_counted_and_how_many_there_may_be(observed: Observed) -> None:
    admission = observed.daemon.admission
    places = [admission.admit() for _ in range(admission.limit)]
    assert (await refusal(observed.api.lock()))[:2] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    shown = await observed.scrape()
    assert shown["admission_refusals_total"] == 1
    assert shown["admission_in_progress_calls"] == shown["admission_limit_calls"] == len(places)
