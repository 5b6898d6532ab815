"""Failures as gRPC statuses: one table from error classes to codes, and the details that go with them.

Rules: every failure carries exactly one google.rpc.ErrorInfo (domain `coordd`, reason, every dynamic part in
metadata); what may be tried again also says when (RetryInfo, and the trailer of gRFC A6 for clients that
retry by themselves); what nobody foresaw says nothing but the reference under which it was logged.
"""

from typing import Any, Final, NoReturn, Protocol

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from msgspec import Struct

from coordd.access import Denial, NotIdentified, NotPermitted
from coordd.core import errors
from coordd.core.limits import MILLISECOND, SECOND
from coordd.engine import Draining, EngineError, StoreFailed
from coordd.rpc.call import ID_HEADER

DOMAIN: Final = "coordd"
# A full queue moves as fast as its holders release, and a daemon restarts in about this time.
RETRY_NS: Final = SECOND

_CODES: Final[dict[type[errors.CommandError], grpc.StatusCode]] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_DENIED: Final[dict[type[Denial], grpc.StatusCode]] = {
    NotIdentified: grpc.StatusCode.UNAUTHENTICATED,
    NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
}
_RETRYABLE: Final = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE})
_ENGINE_REASONS: Final[dict[type[EngineError], str]] = {Draining: "DRAINING", StoreFailed: "STORE_FAILED"}


class Aborting(Protocol):
    """What is asked of a call's context to end it with a failure."""

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> NoReturn:
        """End the call."""
        ...


class Failure(Struct, frozen=True, kw_only=True):
    """How a call fails. `code`: gRPC's; `reason`: ours, for programs; `message`: for people."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str] = {}
    # When the same call may be tried again, if its code says that it may be.
    retry_ns: int = RETRY_NS

    def details(self) -> list[Message]:
        """Return the google.rpc messages that say it to programs."""
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        return [info, *self._violations(), *self._retry()]

    def _violations(self) -> list[Message]:
        if self.code is not grpc.StatusCode.INVALID_ARGUMENT or "field" not in self.metadata:
            return []
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=self.metadata["field"], description=self.message, reason=self.reason
        )
        return [error_details_pb2.BadRequest(field_violations=[violation])]

    def _retry(self) -> list[Message]:
        if self.code not in _RETRYABLE:
            return []
        delay = Duration(seconds=self.retry_ns // SECOND, nanos=self.retry_ns % SECOND)
        return [error_details_pb2.RetryInfo(retry_delay=delay)]

    def trailers(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return the trailing metadata: the status as google.rpc.Status, and when to retry by gRFC A6."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details():
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        trailers: tuple[tuple[str, str | bytes], ...] = (
            ("grpc-status-details-bin", status.SerializeToString()),
        )
        if self.code in _RETRYABLE:
            trailers += (("grpc-retry-pushback-ms", str(self.retry_ns // MILLISECOND)),)
        return trailers

    async def abort(self, context: Aborting, call_id: str) -> NoReturn:
        """End the call with it; `call_id`: what the log calls it."""
        await context.abort(self.code, self.message, (*self.trailers(), (ID_HEADER, call_id)))


def of_command(error: errors.CommandError) -> Failure:
    """Return how a broken call ends."""
    return Failure(
        code=_CODES[type(error)], reason=error.reason, message=error.message, metadata=error.metadata
    )


def of_engine(error: EngineError) -> Failure:
    """Return how a call ends that the engine can't take now."""
    return Failure(code=grpc.StatusCode.UNAVAILABLE, reason=_ENGINE_REASONS[type(error)], message=str(error))


def of_denial(denial: Denial) -> Failure:
    """Return how a call ends that is refused for who makes it."""
    code = _DENIED[type(denial)]
    return Failure(code=code, reason=denial.reason, message=denial.message, metadata=denial.metadata)


def of_message(method: str) -> Failure:
    """Return how a call ends whose bytes are no message."""
    return Failure(
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_MESSAGE",
        message=f"the request is not a valid message of {method}",
        metadata={"method": method},
    )


def of_unreadable() -> Failure:
    """Return how a question ends that can't be answered from the store; the log says why."""
    return Failure(
        code=grpc.StatusCode.DATA_LOSS,
        reason="STORE_UNREADABLE",
        message="the daemon can't read its data file; its log says why",
    )


def of_defect(reference: str) -> Failure:
    """Return how a call ends on which the daemon itself failed; `reference` finds it in the log."""
    return Failure(
        code=grpc.StatusCode.INTERNAL,
        reason="INTERNAL",
        message=f"internal error, logged as {reference}",
        metadata={"reference": reference},
    )
