"""What upstreams really send, reported over gRPC: learnt limits, what is left, gates, events, the client."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import DEADLINE_S, Api, DaemonProcess, TimeSource, rest

from coordd.server import Daemon
from coordd.v1 import admin_pb2, common_pb2
from coordd.v1 import rate_limit_pb2 as pb
from coordd_client import Client, GateState, RefusalReason, Refused

Restart = Callable[[], Awaitable[DaemonProcess]]

CONFIG = """
[server]
address = "127.0.0.1:0"
[store]
path = "{path}"
[limits.github]
windows = {{ "1h" = 5000 }}
[limits.twitter]
windows = {{ "15m" = 300, "1d" = 1000 }}
[limits.flask]
windows = {{ "4s" = 200, "16s" = 800 }}
backoff = "1h"
backoff_max = "1h"
[limits.ietf]
windows = {{ "1m" = 100, "1d" = 10000 }}
backoff = "200ms"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """In place of that of the other tests: one endpoint for each dialect."""
    file = tmp_path / "coordd.toml"
    file.write_text(CONFIG.format(path=tmp_path / "data" / "coordd.db"))
    return file


def epoch(after_s: float) -> str:
    return str(int(time.time() + after_s))


def github() -> dict[str, str]:
    return {
        "Date": "Mon, 21 Sep 2026 14:13:20 GMT",
        "Content-Type": "application/json; charset=utf-8",
        "X-GitHub-Media-Type": "github.v3; format=json",
        "X-RateLimit-Limit": "1000",
        "X-RateLimit-Remaining": "987",
        "X-RateLimit-Reset": epoch(2345),
        "X-RateLimit-Used": "13",
        "X-RateLimit-Resource": "core",
    }


def twitter() -> dict[str, str]:
    return {
        "x-rate-limit-limit": "200",
        "x-rate-limit-remaining": "180",
        "x-rate-limit-reset": epoch(880),
        "x-user-limit-24hour-limit": "100",
        "x-user-limit-24hour-remaining": "42",
        "x-user-limit-24hour-reset": epoch(50_000),
    }


def flask_limiter() -> dict[str, str]:
    return {
        "X-RateLimit-Limit": "100",
        "X-RateLimit-Remaining": "99",
        # It rounds up by a whole second: this is later than the window is long.
        "X-RateLimit-Reset": str(int(time.time() + 5)),
        "Retry-After": "4",
    }


def ietf() -> dict[str, str]:
    return {
        "RateLimit-Policy": '"burst";q=50;w=60,"daily";q=10000;w=86400',
        "RateLimit": '"burst";r=20;t=30, "daily";r=9000;t=3600',
    }


def headers(fields: dict[str, str]) -> list[pb.Header]:
    return [pb.Header(name=name, value=value) for name, value in fields.items()]


async def record(api: Api, permit: Any, status: int, fields: dict[str, str]) -> Any:
    result = pb.USAGE_RESULT_SUCCESS if status < 400 else pb.USAGE_RESULT_FAILURE
    return await api.rate_limit.RecordUsage(
        pb.RecordUsageRequest(
            endpoint=permit.endpoint,
            worker=permit.worker,
            permit_id=permit.permit_id,
            result=result,
            status_code=status,
            headers=headers(fields),
        )
    )


async def status(api: Api, endpoint: str) -> Any:
    system = await api.rate_limit.GetSystemStatus(pb.GetSystemStatusRequest())
    return next(each for each in system.endpoints if each.endpoint == endpoint)


@pytest.mark.parametrize(
    ("endpoint", "sent", "limits", "remaining"),
    [
        ("github", github, [1000], [987]),
        ("twitter", twitter, [200, 100], [180, 42]),
        ("flask", flask_limiter, [100, 800], [99, 799]),
        ("ietf", ietf, [50, 10_000], [20, 9000]),
    ],
)
async def test_what_it_sends_is_learnt_and_shown(
    api: Api, endpoint: str, sent: Any, limits: list[int], remaining: list[int]
) -> None:
    await record(api, await api.permit(endpoint), 200, sent())

    shown = await status(api, endpoint)
    assert [window.limit for window in shown.windows] == limits
    assert [window.remaining for window in shown.windows] == remaining
    assert all(learned.in_force and learned.limit in limits for learned in shown.learned)
    assert len(shown.learned) == (2 if endpoint == "twitter" else 1)
    assert shown.gate.state == pb.GATE_STATE_OPEN
    assert shown.malformed_headers == 0
    listed = (await api.admin.ListLimits(admin_pb2.ListLimitsRequest())).limits
    (limit,) = [each for each in listed if each.endpoint == endpoint]
    assert list(limit.learned) == list(shown.learned)
    assert not limit.is_overridden


async def test_a_refusal_closes_the_gate_for_everybody_and_watchers_see_it(api: Api) -> None:
    events = api.admin.WatchEvents(
        admin_pb2.WatchEventsRequest(subjects=[admin_pb2.SUBJECT_GATE, admin_pb2.SUBJECT_SETTING])
    )
    await events.initial_metadata()
    fields = {**flask_limiter(), "X-RateLimit-Remaining": "0", "Retry-After": "600"}
    await record(api, await api.permit("flask"), 429, fields)

    refused = await api.rate_limit.CanMakeRequest(pb.CanMakeRequestRequest(endpoint="flask", worker="w2"))
    assert refused.refused.reason == common_pb2.REFUSAL_REASON_GATE
    assert 500 < refused.refused.retry_after.ToSeconds() <= 600
    shown = await status(api, "flask")
    assert (shown.gate.state, shown.gate.strikes, shown.violations) == (pb.GATE_STATE_CLOSED, 1, 1)
    learned, closed = await events.read(), await events.read()
    assert (learned.type, learned.name) == (admin_pb2.EVENT_TYPE_LEARNED, "limit/flask")
    assert (closed.type, closed.name) == (admin_pb2.EVENT_TYPE_CLOSED, "flask")
    events.cancel()


async def test_a_waiter_is_told_of_the_gate_and_probes_it(api: Api, time_source: TimeSource) -> None:
    time_source.stop()
    await record(api, await api.permit("ietf"), 429, {})
    streams = [
        api.rate_limit.AwaitPermit(pb.AwaitPermitRequest(endpoint="ietf", worker=worker), timeout=DEADLINE_S)
        for worker in ("w2", "w3")
    ]
    first = await streams[0].read()
    assert first.queued.blocked_by.reason == common_pb2.REFUSAL_REASON_GATE
    assert first.queued.estimated_wait.ToMilliseconds() <= 200
    assert (await streams[1].read()).queued.blocked_by.reason == common_pb2.REFUSAL_REASON_GATE

    time_source.go_on()
    probe = [event async for event in rest(streams[0])][-1].granted
    assert (await status(api, "ietf")).gate.state == pb.GATE_STATE_PROBING
    await record(api, probe, 200, {})
    assert [event async for event in rest(streams[1])][-1].HasField("granted")
    assert (await status(api, "ietf")).gate.state == pb.GATE_STATE_OPEN


async def test_a_broken_header_is_counted_and_harms_nobody(api: Api) -> None:
    fields = {"RateLimit": '"burst";r=', "X-RateLimit-Limit": "\u2603", "Retry-After": "tomorrow"}
    await record(api, await api.permit("ietf"), 200, fields)
    shown = await status(api, "ietf")
    assert (shown.malformed_headers, list(shown.learned)) == (3, [])


@pytest.fixture
async def restarted(config: Path, process: DaemonProcess) -> AsyncIterator[Restart]:
    """What kills the daemon and starts it again on the same data; whatever runs in the end is killed."""
    started: list[DaemonProcess] = []

    async def restart() -> DaemonProcess:
        process.process.kill()
        await process.process.communicate()
        started.append(await DaemonProcess.start(config))
        return started[-1]

    yield restart
    for again in started:
        again.process.kill()
        await again.process.communicate()


async def test_a_restart_after_a_kill_keeps_limits_gates_and_what_others_use(
    process: DaemonProcess, restarted: Restart
) -> None:
    async with grpc.aio.insecure_channel(process.address) as channel:
        api = Api(channel)
        await record(api, await api.permit("github"), 200, github())
        await record(api, await api.permit("flask"), 429, {})
        before = [await status(api, endpoint) for endpoint in ("github", "flask")]

    again = await restarted()
    async with grpc.aio.insecure_channel(again.address) as channel:
        api = Api(channel)
        after = [await status(api, endpoint) for endpoint in ("github", "flask")]
        request = pb.AwaitPermitRequest(endpoint="flask", worker="w", wait_timeout={"seconds": 7200})
        waiting = api.rate_limit.AwaitPermit(request, timeout=DEADLINE_S)
        assert (await waiting.read()).queued.blocked_by.reason == common_pb2.REFUSAL_REASON_GATE
        waiting.cancel()
    assert [window.remaining for window in after[0].windows] == [987]
    assert list(after[0].learned) == list(before[0].learned)
    assert (after[1].gate.state, after[1].gate.opens_at) == (pb.GATE_STATE_CLOSED, before[1].gate.opens_at)


async def test_the_client_reports_and_shows_it(daemon: Daemon) -> None:
    async with Client(daemon.address, worker="w1") as client:
        async with client.permit("twitter") as permit:
            permit.response(200, twitter())
        async with client.permit("flask") as permit:
            permit.response(429, {"Retry-After": "600"})
        with pytest.raises(Refused) as refused:
            async with client.permit("flask"):
                pass
        assert refused.value.refusal.reason is RefusalReason.GATE
        endpoints = {each.endpoint: each for each in (await client.system_status()).endpoints}
    gate = endpoints["flask"].gate
    assert (gate.state, gate.strikes) == (GateState.CLOSED, 1)
    assert gate.opens_in_s is not None
    assert 500 < gate.opens_in_s <= 600
    assert endpoints["twitter"].gate.opens_at is None
    assert [(each.window_s, each.limit) for each in endpoints["twitter"].learned] == [
        (900, 200),
        (86_400, 100),
    ]
