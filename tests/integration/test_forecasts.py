"""Forecasts, pace and what was promised, over the wire."""

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from daemon_api import CONFIG, Api

from coordd.config import load
from coordd.core.limits import SECOND
from coordd.server import Daemon
from coordd.v1 import common_pb2
from coordd.v1 import rate_limit_pb2 as pb
from coordd_client import Client, Priority

LIMITS = """
[limits.paced]
windows = { "10m" = 10 }
pace = "even"
[limits.shared]
windows = { "10m" = 20 }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file with an endpoint that is paced, and one whose classes leave each other room."""
    file = tmp_path / "coordd.toml"
    file.write_text(CONFIG.format(address="127.0.0.1:0", path=tmp_path / "coordd.db") + LIMITS)
    return file


@pytest.fixture
async def daemon(config: Path) -> AsyncIterator[Daemon]:
    """The daemon, started on a store that knows of a critical call every half minute."""
    first = Daemon(load(config, {}))
    await first.start()
    await first.stop(0)
    row = (
        "limit/shared",
        4,
        33_333,
        time.time_ns() // (10 * SECOND) * 10 * SECOND,
        -1,
        json.dumps([-1] * 24),
    )
    with closing(sqlite3.connect(config.with_name("coordd.db"))) as store, store:
        store.execute("INSERT INTO forecasts VALUES (?, ?, ?, ?, ?, ?)", row)
    daemon = Daemon(load(config, {}))
    await daemon.start()
    yield daemon
    await daemon.stop(0)


async def _status(api: Api, endpoint: str) -> pb.EndpointStatus:
    reply = await api.rate_limit.GetSystemStatus(pb.GetSystemStatusRequest())
    return next(status for status in reply.endpoints if status.endpoint == endpoint)


async def test_low_calls_leave_what_is_forecast_and_urgent_ones_have_it(api: Api, daemon: Daemon) -> None:
    (forecast,) = (await _status(api, "shared")).forecasts
    assert forecast.priority == common_pb2.PRIORITY_CRITICAL
    assert forecast.per_s == pytest.approx(1 / 30, rel=0.05)
    assert forecast.kept == 10
    await api.permit("shared", permits=10, priority=common_pb2.PRIORITY_LOW)
    request = pb.CanMakeRequestRequest(endpoint="shared", worker="w2", priority=common_pb2.PRIORITY_LOW)
    refused = (await api.rate_limit.CanMakeRequest(request)).refused
    assert refused.reason == common_pb2.REFUSAL_REASON_HEADROOM
    assert 0 < refused.retry_after.ToSeconds() < 600
    await api.permit("shared", permits=10, priority=common_pb2.PRIORITY_CRITICAL)
    async with Client(daemon.address, worker="w3") as client:
        seen = {status.endpoint: status for status in (await client.system_status()).endpoints}["shared"]
    assert [(each.priority, each.kept) for each in seen.forecasts] == [(Priority.CRITICAL, 10)]


async def test_paced_calls_are_told_when_the_next_may_begin(api: Api) -> None:
    await api.permit("paced")
    request = pb.CanMakeRequestRequest(endpoint="paced", worker="w2")
    refused = (await api.rate_limit.CanMakeRequest(request)).refused
    assert refused.reason == common_pb2.REFUSAL_REASON_PACED
    assert 50 < refused.retry_after.ToSeconds() <= 60


async def test_booking_that_is_claimed_in_time_is_a_promise_kept(api: Api) -> None:
    assert not (await _status(api, "paced")).HasField("scheduling_error")
    booked = await api.rate_limit.ScheduleRequest(pb.ScheduleRequestRequest(endpoint="paced", worker="w1"))
    await api.permit("paced", booking_id=booked.booking_id)
    error = (await _status(api, "paced")).scheduling_error
    assert error.ToNanoseconds() == 0
    assert (await _status(api, "paced")).HasField("scheduling_error")
