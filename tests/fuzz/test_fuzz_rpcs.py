"""Every RPC, with hostile, garbled and nearly right messages: only documented statuses, no trouble."""

import os
from collections.abc import Iterator
from random import Random, SystemRandom
from typing import Any, Final, NamedTuple

import grpc
import pytest
from fuzz_daemon import Daemon
from fuzz_messages import Messages
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from coordd.v1 import (
    admin_pb2,
    bundle_pb2,
    engagement_pb2,
    rate_limit_pb2,
    reservation_pb2,
    session_pb2,
)

# `make fuzz EXAMPLES=n SEED=n`: how many calls of each method, and of which seed; without one, a new one.
_EXAMPLES: Final = int(os.environ.get("COORDD_FUZZ_EXAMPLES", "30"))
_SEED: Final = int(os.environ.get("COORDD_FUZZ_SEED") or SystemRandom().randrange(10**6))

# What docs/semantics.md says a call may end with; DEADLINE_EXCEEDED is the test's own.
_DOCUMENTED: Final = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# Streams are read for so long; a unary call that takes its time and more has hung.
_STREAM_S: Final = 0.03
_UNARY_S: Final = 20.0
_MESSAGES_READ_MAX: Final = 3
_GROWTH_MAX: Final = 256 * 1024 * 1024

# Those first that give out ids for the others to name.
_FILES: Final = (engagement_pb2, reservation_pb2, rate_limit_pb2, bundle_pb2, session_pb2, admin_pb2)
METHODS: Final[list[MethodDescriptor]] = [
    method
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
_KEYS: Final = ["x-a", "x-request-id", "traceparent", "user-agent", "grpc-tags-bin", "coordd-x", "x-bin"]


class Ended(NamedTuple):
    """How a call ended: what it was answered, and the failure, if any."""

    answers: list[bytes]
    error: grpc.RpcError | None


@pytest.fixture(scope="module")
def channel(daemon: Daemon) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(daemon.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def random() -> Random:
    print(f"seed {_SEED}: make fuzz EXAMPLES={_EXAMPLES} SEED={_SEED}")  # noqa: T201  -- shown if a test fails
    return Random(_SEED)


@pytest.fixture(scope="module")
def messages(random: Random) -> Messages:
    return Messages(random)


def path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def call(channel: grpc.Channel, method: MethodDescriptor, requests: list[bytes], metadata: Any = ()) -> Ended:
    """Call a method with bytes as they are; read the first of what it streams."""
    answers: list[bytes] = []
    try:
        for answer in _answers(channel, method, requests, metadata):
            answers.append(answer)
            if len(answers) == _MESSAGES_READ_MAX:
                break
    except grpc.RpcError as error:
        return Ended(answers, error)
    return Ended(answers, None)


def _answers(channel: grpc.Channel, method: MethodDescriptor, requests: list[bytes], metadata: Any) -> Any:
    if method.client_streaming:
        return channel.stream_stream(path(method))(iter(requests), timeout=_STREAM_S, metadata=metadata)
    if method.server_streaming:
        return channel.unary_stream(path(method))(requests[0], timeout=_STREAM_S, metadata=metadata)
    return [channel.unary_unary(path(method))(requests[0], timeout=_UNARY_S, metadata=metadata)]


def check(method: MethodDescriptor, ended: Ended) -> None:
    """Check that a call ended as documented, with exactly one ErrorInfo of ours."""
    error: Any = ended.error
    if error is None or (method.server_streaming and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED):
        return
    assert error.code() in _DOCUMENTED, error
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in error.details():
        return  # the transport's own, which reads no more of it than its length
    status = rpc_status.from_call(error)
    assert status is not None, error
    [info] = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    unpacked = error_details_pb2.ErrorInfo()
    info.Unpack(unpacked)
    assert unpacked.domain == "coordd"
    assert unpacked.reason
    assert len(status.message) < 1_000, "an answer echoes what was asked"


def given_out(method: MethodDescriptor, ended: Ended) -> list[int]:
    """Return the ids in the answers."""
    answer_class = GetMessageClass(method.output_type)
    return [id_ for answer in ended.answers for id_ in _ids(answer_class.FromString(answer))]


def _ids(message: Message) -> list[int]:
    found: list[int] = []
    for field, value in message.ListFields():
        if isinstance(value, Message):
            found += _ids(value)
        elif isinstance(value, int) and (field.name.endswith("_id") or field.name == "fencing_token"):
            found.append(value)
    return found


def metadata_of(random: Random) -> list[tuple[str, str | bytes]]:
    """Return what a client may send; none of it means anything, but for the names that the daemon reads."""
    keys = random.choices(_KEYS, k=random.randint(0, 4))
    return [
        (
            key,
            random.randbytes(9)
            if key.endswith("-bin")
            else "".join(map(chr, random.choices(range(32, 127), k=30))),
        )
        for key in keys
    ]


@pytest.mark.timeout(0)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name.removeprefix("coordd.v1."))
def test_a_hostile_message_has_a_documented_end(
    daemon: Daemon, channel: grpc.Channel, messages: Messages, random: Random, method: MethodDescriptor
) -> None:
    before, is_any_right = daemon.rss(), False
    for example in range(20 * _EXAMPLES):
        if example >= _EXAMPLES and is_any_right:
            break
        count = random.randint(1, 4) if method.client_streaming else 1
        requests = [messages.make(method.input_type).SerializeToString() for _ in range(count)]
        if random.random() < 0.1:
            requests[-1] = messages.garbled(requests[-1])
        ended = call(channel, method, requests, metadata_of(random))
        check(method, ended)
        messages.ids += given_out(method, ended)
        is_any_right |= ended.error is None or ended.error.code() is not grpc.StatusCode.INVALID_ARGUMENT
    if method.name == "Drain":
        call(channel, method, [admin_pb2.DrainRequest(undo=True).SerializeToString()])
    assert is_any_right, "no message got past the checks of form: this tests nothing"
    daemon.check()
    assert daemon.rss() - before < _GROWTH_MAX
