"""Calls as values: which method, which request, how to read the reply. No I/O, so both clients share it.

A client needs to know a `Call` only to make it. `Terms` add how to ask for something with a wait, and how
to keep it and how to give it back, so that one kind of block serves locks, reservations and permits.
"""

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from coordd.v1 import common_pb2
from coordd_client import arguments
from coordd_client.errors import Unavailable, from_refusal
from coordd_client.values import Queued, Refusal, RefusalReason

RequestT = TypeVar("RequestT", bound=Message)
ReplyT = TypeVar("ReplyT", bound=Message)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ReplyT]):
    """One RPC: its path and the types of its messages."""

    path: str
    request: type[RequestT]
    reply: type[ReplyT]


def path_of(method: Method[Any, Any], request: Any) -> str:
    """Returns where a request goes: CRITICAL ones have a lane of their own, past the others' line."""
    if getattr(request, "priority", 0) != common_pb2.PRIORITY_CRITICAL:
        return method.path
    service, _, name = method.path.rpartition("/")
    return f"{service}.Critical/{name}"


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """One call to make. `read` turns its reply into the result, or raises what the reply amounts to."""

    method: Method[Any, Any]
    request: Message
    read: Callable[[Any], T_co]


@dataclass(frozen=True, slots=True)
class Wait(Generic[T]):
    """One wait to make. `read` turns what is granted into the result."""

    method: Method[Any, Any]
    request: Message
    read: Callable[[Any], T]

    def within(self, wait_s: float) -> Any:
        """Returns the request for a wait of `wait_s` seconds. Its request id is the same every time."""
        request: Any = self.method.request()
        request.CopyFrom(self.request)
        request.wait_timeout.CopyFrom(duration(wait_s))
        return request

    def event(self, event: Any) -> Queued | T:
        """Reads one message of the stream. Raises: Refused when the wait is over without a grant."""
        match event.WhichOneof("event"):
            case "granted":
                return self.read(event.granted)
            case "refused":
                raise from_refusal(refusal(event.refused))
            case _:
                return queued(event.queued)


@dataclass(frozen=True, slots=True)
class Renewal:
    """How long something is held from its renewal. `is_preempted`: and no longer, whatever is asked."""

    left_s: float
    is_preempted: bool = False


@dataclass(frozen=True, slots=True)
class Terms(Generic[T]):
    """What a block needs to know of what it holds.

    Attributes:
        once: asks without waiting.
        wait: asks and waits; None where that is not possible.
        forgo: gives back what was granted but never used.
        renew: extends it. None: it is not kept alive.
        left_s: the time left of a grant in seconds when it was sent.
    """

    once: Call[T]
    wait: Wait[T] | None
    forgo: Callable[[T], Call[object]]
    renew: Callable[[T], Call[Renewal]] | None
    left_s: Callable[[T], float]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; an empty token says that it was the last."""

    entries: tuple[T, ...]
    next_page_token: str


def codecs(method: Method[Any, Any]) -> dict[str, Any]:
    """Returns how a channel, async or not, is told to write and read a method's messages."""
    return {
        "request_serializer": method.request.SerializeToString,
        "response_deserializer": method.reply.FromString,
    }


def stream_ended() -> Unavailable:
    """Returns the error for a wait stream that ended without a last word: to be resumed like a broken one."""
    return Unavailable("the wait's stream ended without a grant or a refusal")


def new_request_id() -> str:
    """Returns an id under which one request may be sent any number of times."""
    return str(uuid.uuid4())


# ---- into messages


def duration(seconds: float) -> Duration:
    """Returns `seconds` for the wire."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def optional_duration(name: str, seconds: float | None) -> Duration | None:
    """Returns the argument `name`, in seconds, for the wire; absent for None.

    Raises: TypeError, InvalidRequest.
    """
    length_s = arguments.optional_seconds(name, seconds)
    return None if length_s is None else duration(length_s)


def number(value: enum.IntEnum) -> Any:
    """Returns an enum's number; generated code has a type of its own for each enum's numbers."""
    return value.value


# ---- out of messages


def seconds(message: Duration) -> float:
    """Returns a duration in seconds."""
    return message.ToNanoseconds() / 1e9


def optional_seconds(message: Message, field: str) -> float | None:
    """Returns the duration in `field` in seconds; None where it is absent."""
    return seconds(getattr(message, field)) if message.HasField(field) else None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(message: Timestamp) -> datetime:
    """Returns an instant as an aware UTC datetime, to the microsecond."""
    return _EPOCH + timedelta(microseconds=message.ToNanoseconds() // 1000)


def refusal(message: common_pb2.Refusal) -> Refusal:
    """Reads a refusal."""
    return Refusal(
        reason=RefusalReason(message.reason),
        subject=message.subject,
        retry_after_s=optional_seconds(message, "retry_after"),
        until=instant(message.retry_at) if message.HasField("retry_at") else None,
        holder=message.holder,
        window_s=optional_seconds(message, "window"),
        queue_position=message.queue_position,
    )


def queued(message: common_pb2.Queued) -> Queued:
    """Reads where a wait stands."""
    return Queued(
        position=message.position,
        estimated_wait_s=optional_seconds(message, "estimated_wait"),
        blocked_by=refusal(message.blocked_by) if message.HasField("blocked_by") else None,
        times_out_in_s=seconds(message.times_out_in),
    )


def granted_or_refused(read: Callable[[Any], T]) -> Callable[[Any], T]:
    """Returns a reader of replies that are granted, then read by `read`, or refused, which raises Refused."""

    def read_result(reply: Any) -> T:
        if reply.HasField("granted"):
            return read(reply.granted)
        raise from_refusal(refusal(reply.refused))

    return read_result
