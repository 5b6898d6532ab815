"""Clients that nobody here wrote, without any proto files: the real grpcurl and buf curl, by reflection."""

import asyncio
import base64
import json
from typing import Any

from daemon_api import BIN, DEADLINE_S, DaemonProcess
from google.rpc import error_details_pb2

DECODER = json.JSONDecoder()


async def run(*command: Any) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(DEADLINE_S):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def documents(text: str) -> list[Any]:
    """Return the JSON documents that stand one after the other."""
    found, text = [], text.strip()
    while text:
        document, end = DECODER.raw_decode(text)
        found.append(document)
        text = text[end:].lstrip()
    return found


async def grpcurl(
    process: DaemonProcess, method: str, request: Any, *options: str
) -> tuple[int, list[Any], str]:
    code, output, errors = await run(
        BIN / "grpcurl", "-plaintext", *options, "-d", json.dumps(request), process.address, method
    )
    return code, documents(output), errors


async def buf(process: DaemonProcess, method: str, request: Any) -> tuple[int, list[Any], str]:
    code, output, errors = await run(
        BIN / "buf",
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        "--data",
        json.dumps(request),
        f"http://{process.address}/{method}",
    )
    return code, documents(output), errors


LOCK = {"item": "tweet:1", "worker": "w1", "kind": "analysis"}


async def test_grpcurl_lists_and_describes_what_there_is(process: DaemonProcess) -> None:
    code, output, _ = await run(BIN / "grpcurl", "-plaintext", process.address, "list")
    assert code == 0
    assert output.split() == [
        "coordd.v1.AdminService",
        "coordd.v1.BundleService",
        "coordd.v1.EngagementService",
        "coordd.v1.RateLimitService",
        "coordd.v1.ReservationService",
        "coordd.v1.SessionService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    ]
    symbol = "coordd.v1.EngagementService"
    code, output, _ = await run(BIN / "grpcurl", "-plaintext", process.address, "describe", symbol)
    assert code == 0
    assert "rpc RequestLock ( .coordd.v1.RequestLockRequest )" in output


async def test_grpcurl_asks_for_health(process: DaemonProcess) -> None:
    request = {"service": "coordd.v1.EngagementService"}
    code, answers, _ = await grpcurl(process, "grpc.health.v1.Health/Check", request)
    assert (code, answers) == (0, [{"status": "SERVING"}])


async def test_grpcurl_takes_a_lock_and_gives_it_back(process: DaemonProcess) -> None:
    code, [answer], _ = await grpcurl(process, "coordd.v1.EngagementService/RequestLock", LOCK)
    assert code == 0
    lock = answer["granted"]
    assert lock["item"] == "tweet:1"
    _, [answer], _ = await grpcurl(
        process, "coordd.v1.EngagementService/RequestLock", LOCK | {"worker": "w2"}
    )
    assert answer["refused"]["reason"] == "REFUSAL_REASON_HELD"
    release = {
        "item": "tweet:1",
        "worker": "w1",
        "fencing_token": lock["fencing_token"],
        "outcome": "OUTCOME_SUCCESS",
    }
    code, [answer], _ = await grpcurl(process, "coordd.v1.EngagementService/ReleaseLock", release)
    assert code == 0
    assert answer["engagement"]["outcome"] == "OUTCOME_SUCCESS"


async def test_grpcurl_shows_what_is_wrong(process: DaemonProcess) -> None:
    code, answers, errors = await grpcurl(
        process, "coordd.v1.EngagementService/RequestLock", LOCK | {"kind": "nope"}
    )
    assert code != 0
    assert answers == []
    assert "InvalidArgument" in errors
    assert '"reason": "UNKNOWN_KIND"' in errors
    assert '"domain": "coordd"' in errors


async def test_grpcurl_waits_for_a_lock(process: DaemonProcess) -> None:
    await grpcurl(process, "coordd.v1.EngagementService/RequestLock", LOCK | {"ttl": "3s"})
    wait = LOCK | {"worker": "w2", "wait_timeout": "10s"}
    code, [first, *_, last], _ = await grpcurl(process, "coordd.v1.EngagementService/AwaitLock", wait)
    assert code == 0
    assert first["queued"]["position"] == 1
    assert last["granted"]["worker"] == "w2"


async def test_buf_curl_calls_and_streams(process: DaemonProcess) -> None:
    code, [answer], errors = await buf(process, "coordd.v1.RateLimitService/CanMakeRequest", PERMIT)
    assert code == 0, errors
    assert answer["granted"]["permits"] == 3
    lock = {"item": "a", "kind": "analysis", "worker": "w1"}
    code, _, errors = await buf(process, "coordd.v1.EngagementService/RequestLock", lock)
    assert code == 0, errors
    wait = lock | {"worker": "w2", "wait_timeout": "0.2s"}
    code, [first, *_, last], _ = await buf(process, "coordd.v1.EngagementService/AwaitLock", wait)
    assert code == 0
    assert first["queued"]["blockedBy"]["holder"] == "w1"
    assert last["refused"]["reason"] == "REFUSAL_REASON_WAIT_TIMEOUT"
    # The window is full for longer than this may wait, which is known at once.
    wait = {"endpoint": "post", "worker": "w2", "wait_timeout": "0.2s"}
    code, [only], _ = await buf(process, "coordd.v1.RateLimitService/AwaitPermit", wait)
    assert only["refused"]["reason"] == "REFUSAL_REASON_WOULD_TIME_OUT"


PERMIT = {"endpoint": "post", "worker": "w1", "permits": 3}


async def test_buf_curl_shows_what_is_wrong(process: DaemonProcess) -> None:
    code, _, errors = await buf(process, "coordd.v1.RateLimitService/CanMakeRequest", PERMIT | {"permits": 4})
    assert code != 0
    failure = json.loads(errors)
    assert failure["code"] == "out_of_range"
    [detail] = [detail for detail in failure["details"] if detail["type"] == "google.rpc.ErrorInfo"]
    info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(detail["value"] + "=="))
    assert (info.domain, info.reason) == ("coordd", "PERMITS_ABOVE_LIMIT")
