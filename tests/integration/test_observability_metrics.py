"""What a scrape of a real daemon says after calls that are known: exactly that."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from daemon_api import CONFIG, DEADLINE_S, DaemonProcess, launch, length, refusal, rest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from observed import METRICS, Observed, ask, get, samples

from coordd.access import LEAST_ROLES
from coordd.config import ConfigError, load
from coordd.rpc import METHODS
from coordd.telemetry.catalogue import METRICS as DECLARED
from coordd.v1 import admin_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2

# What is of no call: sizes, versions, times that pass by themselves.
AMBIENT = (
    "build_info",
    "tasks",
    "store_bytes",
    "event_loop_lag",
    "call_duration_seconds_sum",
    "commit_duration_seconds_sum",
)


def counted(scrape: dict[str, float], *prefixes: str) -> dict[str, float]:
    return {name: value for name, value in scrape.items() if name.startswith(prefixes)}


async def finish(stream: Any) -> None:
    async for _ in rest(stream):
        pass


async def test_an_idle_daemon_shows_what_is_configured_and_nothing_else(observed: Observed) -> None:
    scrape = {k: v for k, v in (await observed.scrape()).items() if not k.startswith(AMBIENT)}
    assert scrape == {
        "serving": 1,
        "admission_limit_calls": observed.daemon.admission.limit,
        "endpoint_gate{brief,open}": 1,
        "endpoint_gate{post,open}": 1,
        "endpoint_health{brief,healthy}": 1,
        "endpoint_health{post,healthy}": 1,
        "endpoint_remaining_permits{brief}": 2,
        "endpoint_remaining_permits{post}": 3,
        "endpoint_window_limit_permits{brief,1s}": 2,
        "endpoint_window_limit_permits{post,3600s}": 5,
        "endpoint_window_limit_permits{post,900s}": 3,
        "pool_capacity_units{api_requests}": 900,
        "pool_capacity_units{api_tweets}": 50,
        "pool_capacity_units{burst}": 4,
        "pool_capacity_units{content_pipeline}": 100,
        "pool_capacity_units{small}": 3,
    }


async def test_every_method_is_shown_before_it_is_called(observed: Observed) -> None:
    shown = await samples(observed.daemon.telemetry.metrics_address)
    calls = {(s.labels["service"], s.labels["method"]) for s in shown if s.name == "coordd_calls_total"}
    assert calls == {tuple(method.rpartition(".")[2].split("/")) for method in METHODS}


async def test_a_probe_is_answered_and_counted(observed: Observed) -> None:
    """Metrics knew the methods of coordd.v1 only: with them on, health and reflection failed."""
    health: Any = health_pb2_grpc.HealthStub(observed.api.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert (await observed.scrape())["calls_total{OK,Check,Health}"] == 1
    assert {method for method in LEAST_ROLES if method not in METHODS} == set()


async def test_locks_under_known_traffic(observed: Observed) -> None:
    api, time = observed.api, observed.time
    time.stop()
    first = await api.lock("w1")
    refused = await api.engagement.RequestLock(
        engagement_pb2.RequestLockRequest(item="i", worker="w2", kind="analysis")
    )
    assert refused.HasField("refused")
    stream = api.await_lock("w3")
    assert (await stream.read()).HasField("queued")
    waiting = await observed.scrape()
    assert counted(waiting, "waiters", "locks", "calls_under_way") == {
        "waiters{medium,lock}": 1,
        "locks": 1,
        "calls_under_way{AwaitLock,EngagementService}": 1,
    }
    time.advance(2)
    await api.unlock(first)
    assert (await stream.read()).HasField("granted")
    await finish(stream)
    assert (await refusal(api.engagement.RequestLock(engagement_pb2.RequestLockRequest())))[
        0
    ] == "INVALID_ARGUMENT"
    scrape = await observed.scrape()
    assert counted(scrape, "calls_", "call_failures") == {
        "calls_total{OK,RequestLock,EngagementService}": 2,
        "calls_total{OK,ReleaseLock,EngagementService}": 1,
        "calls_total{OK,AwaitLock,EngagementService}": 1,
        "calls_total{INVALID_ARGUMENT,RequestLock,EngagementService}": 1,
        "call_failures_total{INVALID_ARGUMENT,INVALID_ID}": 1,
    }
    assert counted(scrape, "decisions", "refusals", "conflicts_", "locks", "waiters") == {
        "decisions_total{request_lock,granted}": 1,
        "decisions_total{request_lock,refused}": 1,
        "decisions_total{request_lock,queued}": 1,
        "decisions_total{release_lock,lock_released}": 1,
        "refusals_total{lock,held,at_once}": 1,
        "conflicts_total{lock,held}": 2,
        "locks": 1,
    }
    assert counted(scrape, "acquisition", "queue_wait", "conflict_resolution") == {
        "acquisition_seconds_count{lock}": 2,
        "acquisition_seconds_sum{lock}": 2,
        "queue_wait_seconds_count{medium,lock,granted}": 1,
        "queue_wait_seconds_sum{medium,lock,granted}": 2,
        "conflict_resolution_seconds_count{lock,granted}": 1,
        "conflict_resolution_seconds_sum{lock,granted}": 2,
    }
    assert counted(scrape, "call_duration_seconds_count") == {
        "call_duration_seconds_count{RequestLock,EngagementService}": 3,
        "call_duration_seconds_count{ReleaseLock,EngagementService}": 1,
    }


async def test_a_wait_that_times_out_is_a_refusal_after_waiting(observed: Observed) -> None:
    api, time = observed.api, observed.time
    await api.lock("w1")
    time.stop()
    stream = api.await_lock("w2", wait_timeout=length(3))
    assert (await stream.read()).HasField("queued")
    time.advance(3)
    # What is due is done with the next call.
    await api.engagement.GetLock(engagement_pb2.GetLockRequest(item="i"))
    await finish(stream)
    scrape = await observed.scrape()
    assert counted(scrape, "refusals", "queue_wait", "conflict_resolution", "waiters") == {
        "refusals_total{lock,wait_timeout,after_waiting}": 1,
        "queue_wait_seconds_count{medium,lock,refused}": 1,
        "queue_wait_seconds_sum{medium,lock,refused}": 3,
        "conflict_resolution_seconds_count{lock,wait_timeout}": 1,
        "conflict_resolution_seconds_sum{lock,wait_timeout}": 3,
    }


async def test_a_waiter_whose_stream_is_gone_is_away(observed: Observed) -> None:
    api = observed.api
    await api.lock("w1")
    stream = api.await_lock("w2", request_id="r")
    assert (await stream.read()).HasField("queued")
    stream.cancel()
    async with asyncio.timeout(DEADLINE_S):
        while "waiters_away" not in (scrape := await observed.scrape()):
            pass
    assert counted(scrape, "waiters") == {"waiters{medium,lock}": 1, "waiters_away": 1}
    assert scrape["calls_total{CANCELLED,AwaitLock,EngagementService}"] == 1


async def test_an_endpoint_under_known_traffic(observed: Observed) -> None:
    api = observed.api
    permits = [await api.permit() for _ in range(3)]
    full = await api.rate_limit.CanMakeRequest(
        rate_limit_pb2.CanMakeRequestRequest(endpoint="post", worker="w1")
    )
    assert full.HasField("refused")
    scrape = await observed.scrape()
    assert counted(
        scrape, "endpoint_utilisation", "endpoint_remaining", "endpoint_health{post", "permits"
    ) == {
        "endpoint_utilisation_ratio{post}": 1,
        "endpoint_remaining_permits{brief}": 2,
        "endpoint_health{post,critical}": 1,
        "permits": 3,
    }
    assert counted(scrape, "endpoint_window_used") == {
        "endpoint_window_used_permits{post,900s}": 3,
        "endpoint_window_used_permits{post,3600s}": 3,
    }
    assert counted(scrape, "refusals", "conflicts_") == {"refusals_total{permit,window_full,at_once}": 1}
    await api.rate_limit.RecordUsage(
        rate_limit_pb2.RecordUsageRequest(
            endpoint="post",
            worker="w1",
            permit_id=permits[0].permit_id,
            result=rate_limit_pb2.USAGE_RESULT_FAILURE,
            status_code=429,
        )
    )
    scrape = await observed.scrape()
    assert counted(scrape, "endpoint_upstream", "endpoint_gate") == {
        "endpoint_upstream_429s_total{post}": 1,
        "endpoint_gate{brief,open}": 1,
        "endpoint_gate{post,closed}": 1,
        "endpoint_gate_closures_total{post}": 1,
    }


async def test_pools_sessions_and_expiries(observed: Observed) -> None:
    api, time = observed.api, observed.time
    time.stop()
    await api.reserve("slot", units=2, ttl=length(30))
    stream, _ = await api.connect("w1")
    scrape = await observed.scrape()
    assert counted(scrape, "pool_used", "reservations", "sessions") == {
        "pool_used_units{small}": 2,
        "reservations": 1,
        "sessions": 1,
    }
    stream.cancel()
    time.advance(31)
    await api.reservation.ListReservations(reservation_pb2.ListReservationsRequest())
    scrape = await observed.scrape()
    assert counted(scrape, "pool_used", "reservations", "sessions", "session_exp", "expiries") == {
        "session_expiries_total": 1,
        "expiries_total{reservation}": 1,
    }


async def test_commits_are_counted_with_their_size(observed: Observed) -> None:
    before = counted(await observed.scrape(), "commit_")
    await observed.api.lock(item="a")
    after = await observed.scrape()
    assert after["commit_duration_seconds_count"] == before.get("commit_duration_seconds_count", 0) + 1
    assert after["commit_commands_sum"] == before.get("commit_commands_sum", 0) + 1
    assert after["commit_records_sum"] == before.get("commit_records_sum", 0) + 1
    assert after["store_bytes{data}"] > 0


async def test_a_daemon_that_drains_says_so(observed: Observed) -> None:
    await observed.api.admin.Drain(admin_pb2.DrainRequest())
    assert (await observed.scrape())["draining"] == 1


async def test_only_declared_metrics_are_shown_with_their_labels(observed: Observed) -> None:
    await test_an_endpoint_under_known_traffic(observed)
    for sample in await samples(observed.daemon.telemetry.metrics_address):
        if sample.name.startswith("coordd_"):
            base = next(
                name
                for suffix in ("", "_bucket", "_count", "_sum", "_created")
                if (name := sample.name.removesuffix(suffix)) in DECLARED
            )
            assert set(sample.labels) - {"le"} == set(DECLARED[base].labels), sample
            assert DECLARED[base].help


async def test_workers_and_items_make_no_series(observed: Observed) -> None:
    async def series() -> int:
        return len(await samples(observed.daemon.telemetry.metrics_address))

    await observed.api.lock("w", "first")
    few = await series()
    for number in range(50):
        await observed.api.lock(f"worker-{number}", f"item-{number}")
    assert await series() == few


# -- the endpoint itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /metrics SPDY/3\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 150 + b"\r\n", 400),
        (b"GET /metrics?name=x HTTP/1.1\r\n\r\n", 200),
    ],
)
async def test_other_requests_are_refused(observed: Observed, request_: bytes, status: int) -> None:
    assert (await ask(observed.daemon.telemetry.metrics_address, request_)).status == status


async def test_a_head_has_no_body_and_openmetrics_is_given_to_who_asks(observed: Observed) -> None:
    address = observed.daemon.telemetry.metrics_address
    assert (await ask(address, b"HEAD /metrics HTTP/1.1\r\n\r\n")).body == b""
    reply = await get(address, Accept="application/openmetrics-text; version=1.0.0")
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    assert reply.body.endswith(b"# EOF\n")
    assert (await get(address)).headers["content-type"].startswith("text/plain")


async def test_a_request_without_end_is_dropped(observed: Observed) -> None:
    host, _, port = observed.daemon.telemetry.metrics_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"A" * (64 << 10))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    assert (await get(observed.daemon.telemetry.metrics_address)).status == 200


async def test_too_many_connections_are_told_to_come_back(observed: Observed) -> None:
    address = observed.daemon.telemetry.metrics_address
    host, _, port = address.rpartition(":")
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(16)]
    reply = await get(address)
    assert reply.status == 503
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()


async def test_an_address_that_is_taken_is_said_and_nothing_is_touched(
    observed: Observed, config: Path, tmp_path: Path
) -> None:
    taken, data = observed.daemon.telemetry.metrics_address, tmp_path / "second.db"
    text = CONFIG.format(address="127.0.0.1:0", path=data) + METRICS.replace("127.0.0.1:0", taken)
    config.write_text(text)  # noqa: ASYNC240
    process = await launch(config)
    _, errors = await process.communicate()
    assert process.returncode == 5
    assert f"can't show metrics on {taken}" in errors.decode()
    assert not data.exists()


async def test_a_daemon_as_a_process_says_where_its_metrics_are(config: Path) -> None:
    config.write_text(config.read_text() + METRICS)  # noqa: ASYNC240
    process = await DaemonProcess.start(config)
    _, errors = await process.stop()
    assert re.search(r"\] metrics +address=127\.0\.0\.1:\d+", errors)


def test_metrics_are_off_by_default_and_kept_on_loopback(tmp_path: Path) -> None:
    assert load(None, {}).metrics.address == ""
    file = tmp_path / "coordd.toml"
    file.write_text(METRICS.replace("127.0.0.1", "192.0.2.1"))
    with pytest.raises(ConfigError, match="is not loopback"):
        load(file, {})
    file.write_text(METRICS.replace("127.0.0.1", "192.0.2.1") + "insecure = true\n")
    assert load(file, {}).metrics.address == "192.0.2.1:0"
    for host in ("[::1]", "localhost", "127.9.9.9"):
        file.write_text(METRICS.replace("127.0.0.1", host))
        assert load(file, {}).metrics.address == f"{host}:0"
