import asyncio
from typing import Any

import grpc
import pytest
from client_servers import ScriptedServer, fail, reply
from google.rpc import status_pb2

from coordd.v1 import engagement_pb2 as pb
from coordd_client import (
    BookingLapsed,
    Client,
    Config,
    CoorddError,
    DeadlineExceeded,
    InvalidRequest,
    LeaseLost,
    NotFound,
    NotHolder,
    OutOfRange,
    QueueFull,
    RequestEnded,
    RequestIdReused,
)

_Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (_Code.INVALID_ARGUMENT, "UNKNOWN_KIND", InvalidRequest),
        (_Code.OUT_OF_RANGE, "UNITS_ABOVE_CAPACITY", OutOfRange),
        (_Code.NOT_FOUND, "UNKNOWN_ID", NotFound),
        (_Code.FAILED_PRECONDITION, "LEASE_LOST", LeaseLost),
        (_Code.FAILED_PRECONDITION, "NOT_HOLDER", NotHolder),
        (_Code.FAILED_PRECONDITION, "REQUEST_ENDED", RequestEnded),
        (_Code.FAILED_PRECONDITION, "BOOKING_LAPSED", BookingLapsed),
        (_Code.FAILED_PRECONDITION, "OF_A_NEWER_DAEMON", CoorddError),
        (_Code.ALREADY_EXISTS, "REQUEST_ID_REUSED", RequestIdReused),
        (_Code.RESOURCE_EXHAUSTED, "TOO_MANY_BOOKINGS", QueueFull),
        (_Code.INTERNAL, "", CoorddError),
    ],
)
async def test_each_reason_has_its_class_and_keeps_its_details(
    server: ScriptedServer, client: Client, code: grpc.StatusCode, reason: str, expected: type[CoorddError]
):
    async def refuse(_: pb.GetLockRequest, context: object) -> None:
        await fail(context, code, reason, {"item": "x"})

    server.answers["GetLock"] = refuse
    with pytest.raises(CoorddError) as caught:
        await client.get_lock("x")
    assert type(caught.value) is expected
    assert caught.value.reason == reason
    assert caught.value.metadata == ({"item": "x"} if reason else {})
    assert isinstance(caught.value.__cause__, grpc.RpcError) == (not reason), "a reason says it all"
    assert caught.value.__suppress_context__
    assert server.names == ["GetLock"], "only UNAVAILABLE is tried again"


async def test_a_full_queue_says_when_to_come_back_and_is_not_retried(server: ScriptedServer, client: Client):
    async def full(_: pb.RequestLockRequest, context: object) -> None:
        await fail(context, _Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_s=7)

    server.answers["RequestLock"] = full
    with pytest.raises(QueueFull) as caught:
        async with client.lock("tweet:1", kind="reply"):
            pass
    assert caught.value.retry_after_s == 7.0
    assert server.names == ["RequestLock"]


async def test_too_big_a_message_is_an_invalid_request(server: ScriptedServer, client: Client):
    server.answers["GetLock"] = reply(pb.GetLockResponse(lock=pb.Lock(item="x" * 5_000_000)))
    with pytest.raises(InvalidRequest, match="larger than max"):
        await client.get_lock("x")


@pytest.mark.parametrize("ttl", [float("nan"), float("inf"), -1e300])
async def test_what_the_wire_cannot_say_is_refused_before_it_is_sent(
    server: ScriptedServer, client: Client, ttl: float
):
    with pytest.raises(InvalidRequest) as caught:
        client.lock("tweet:1", kind="reply", ttl=ttl)
    assert caught.value.reason == "INVALID_DURATION"
    for units in (-1, 2**32):
        with pytest.raises(InvalidRequest, match="not within"):
            client.reservation("memory", units=units)
    assert isinstance(caught.value, ValueError)
    assert server.calls == []


async def test_a_deadline_that_passes_is_not_retried(server: ScriptedServer):
    async def silent(_: pb.GetLockRequest, __: object) -> None:
        await asyncio.Event().wait()

    server.answers["GetLock"] = silent
    async with Client(server.address, worker="w1", config=Config(call_timeout_s=0.2)) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get_lock("x")
    assert server.names == ["GetLock"]


@pytest.mark.parametrize(
    "details", [b"\xff\xff", status_pb2.Status(code=3, message="other").SerializeToString()]
)
async def test_details_that_do_not_fit_the_status_are_left_out(
    server: ScriptedServer, client: Client, details: bytes
):
    async def garbled(_: pb.GetLockRequest, context: Any) -> None:
        await context.abort(_Code.NOT_FOUND, "as is", (("grpc-status-details-bin", details),))

    server.answers["GetLock"] = garbled
    with pytest.raises(NotFound, match="as is") as caught:
        await client.get_lock("x")
    assert (caught.value.reason, caught.value.metadata, caught.value.retry_after_s) == ("", {}, None)
