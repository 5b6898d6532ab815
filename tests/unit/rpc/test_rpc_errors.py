"""Failures as statuses: each class its code, each status one ErrorInfo, nothing leaked."""

import asyncio
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from offline import AsyncContext, Ended, error_info

from coordd.core import errors as core
from coordd.engine import Draining, EngineError, StoreFailed
from coordd.rpc import calls, errors
from coordd.rpc.call import Call
from coordd.v1 import engagement_pb2

METHOD = "/coordd.v1.EngagementService/RequestLock"


def begin(context: Any) -> Call:
    return Call(METHOD, None, 0, context)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (core.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT),
        (core.OutOfRange, grpc.StatusCode.OUT_OF_RANGE),
        (core.NotFound, grpc.StatusCode.NOT_FOUND),
        (core.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
        (core.FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION),
        (core.ResourceExhausted, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_every_broken_call_has_its_code(error: type[core.CommandError], code: grpc.StatusCode) -> None:
    failure = errors.of_command(error("SOME_REASON", "Some message.", item="i", count=3))
    assert (failure.code, failure.message) == (code, "Some message.")
    assert error_info(failure.trailers()) == ("SOME_REASON", {"item": "i", "count": "3"})


def test_no_class_of_broken_calls_is_forgotten() -> None:
    for error in core.CommandError.__subclasses__():
        errors.of_command(error("REASON", "message"))


@pytest.mark.parametrize(("error", "reason"), [(Draining, "DRAINING"), (StoreFailed, "STORE_FAILED")])
def test_the_engines_failures_are_unavailable(error: type[EngineError], reason: str) -> None:
    failure = errors.of_engine(error("why"))
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert error_info(failure.trailers())[0] == reason


def details_of(failure: errors.Failure) -> list[Any]:
    return list(status_pb2.Status.FromString(dict(failure.trailers())["grpc-status-details-bin"]).details)


def test_what_can_be_tried_again_says_when() -> None:
    failure = errors.of_command(core.ResourceExhausted("QUEUE_FULL", "full"))
    retry = error_details_pb2.RetryInfo()
    [packed] = [detail for detail in details_of(failure) if detail.Is(retry.DESCRIPTOR)]
    packed.Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1000
    assert dict(failure.trailers())["grpc-retry-pushback-ms"] == "1000"


def test_what_cannot_does_not() -> None:
    failure = errors.of_command(core.FailedPrecondition("LEASE_LOST", "lost"))
    assert len(details_of(failure)) == len(failure.trailers()) == 1


def test_a_wrong_field_is_named_as_a_violation() -> None:
    failure = errors.of_command(core.InvalidArgument("INVALID_ID", "item is required", field="item"))
    violations = error_details_pb2.BadRequest()
    [packed] = [detail for detail in details_of(failure) if detail.Is(violations.DESCRIPTOR)]
    packed.Unpack(violations)
    [violation] = violations.field_violations
    assert (violation.field, violation.description) == ("item", "item is required")


def test_the_status_says_the_same_as_the_trailer() -> None:
    failure = errors.of_command(core.NotFound("UNKNOWN_ID", "nobody was given 7", id=7))
    status = status_pb2.Status.FromString(dict(failure.trailers())["grpc-status-details-bin"])
    assert (status.code, status.message) == (grpc.StatusCode.NOT_FOUND.value[0], "nobody was given 7")


async def broken(_request: Any, _context: Any) -> Any:
    raise RuntimeError("the password is secret")


async def test_a_defect_leaks_nothing_but_its_reference() -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(Ended) as ended:
        await calls.guarded(begin, broken)(None, AsyncContext(None))
    reason, metadata = error_info(ended.value.trailers)
    assert (ended.value.code, reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in ended.value.details + str(ended.value.trailers)
    [logged] = [entry for entry in logs if entry["event"] == "internal error"]
    assert logged["reference"] == metadata["reference"]
    assert "secret" in str(logged["exc_info"])


async def test_bytes_that_are_no_message_are_the_callers_fault() -> None:
    parse = calls.tolerant(engagement_pb2.RequestLockRequest.FromString)
    assert parse(b"\x0a\x01a").item == "a"
    for malformed in (b"\xff", b"\x0a\xff", b"\x0a\x02\xff\xfe"):  # the last: not UTF-8
        with pytest.raises(Ended) as ended:
            await calls.guarded(begin, broken)(parse(malformed), AsyncContext(None))
        assert error_info(ended.value.trailers) == ("INVALID_MESSAGE", {"method": METHOD})


class Unwritable(AsyncContext):
    """A context whose client is gone."""

    async def write(self, message: Any) -> None:
        raise grpc.aio.InternalError("gone")


async def test_a_stream_learns_that_its_message_could_not_be_sent() -> None:
    closed = []

    async def stream(_request: Any, _context: Any) -> Any:
        try:
            yield "grant"
        except GeneratorExit:
            closed.append("grant")
            raise

    with pytest.raises(grpc.aio.InternalError):
        await calls.guarded(begin, calls.sending(stream))(None, Unwritable(None))
    assert closed == ["grant"]


class Stuck(AsyncContext):
    """A context whose client does not read."""

    def __init__(self) -> None:
        super().__init__(None)
        self.is_writing = asyncio.Event()

    async def write(self, message: Any) -> None:
        self.is_writing.set()
        await asyncio.Event().wait()


async def test_a_stream_that_is_cancelled_while_sending_learns_it_as_well() -> None:
    closed = asyncio.Event()

    async def stream(_request: Any, _context: Any) -> Any:
        try:
            yield "grant"
        finally:
            closed.set()

    context = Stuck()
    call = asyncio.create_task(calls.guarded(begin, calls.sending(stream))(None, context))  # type: ignore[arg-type]
    await context.is_writing.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert closed.is_set()
