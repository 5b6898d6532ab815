"""The blocking client, without a network by grpc_testing, and once over a real one."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import grpc_testing
import pytest
from client_servers import METHODS, ScriptedServer, lock, reply
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from coordd.v1 import common_pb2, rate_limit_pb2
from coordd.v1 import engagement_pb2 as pb
from coordd_client import Config, CoorddError, LeaseLost, Outcome, Queued, Refused, Superseded, WaitTimeout
from coordd_client.blocking import Client

T = TypeVar("T")

_FAST = Config(backoff_s=0.001, backoff_max_s=0.002)
_SERVICES = {method.containing_service.full_name: method.containing_service for method in METHODS.values()}


class _Wire:
    """The far end of a channel that goes nowhere: takes each call and answers it."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.channel = grpc_testing.channel(_SERVICES.values(), grpc_testing.strict_real_time())
        self._pool = pool

    def run(self, script: Callable[[Client], T]) -> "Future[T]":
        client = Client(worker="w1", config=_FAST, channel=self.channel)
        return self._pool.submit(script, client)

    def answer(self, name: str, message: Any) -> Any:
        _, request, rpc = self.channel.take_unary_unary(METHODS[name])
        rpc.terminate(message, (), grpc.StatusCode.OK, "")
        return request

    def fail(self, name: str, code: grpc.StatusCode, reason: str) -> Any:
        _, request, rpc = self.channel.take_unary_unary(METHODS[name])
        rpc.terminate(None, _trailers(code, reason), code, "as scripted")
        return request

    def stream(self, name: str, *messages: Any, code: grpc.StatusCode = grpc.StatusCode.OK) -> Any:
        _, request, rpc = self.channel.take_unary_stream(METHODS[name])
        for message in messages:
            rpc.send_response(message)
        rpc.terminate((), code, "as scripted")
        return request


def _trailers(code: grpc.StatusCode, reason: str) -> tuple[tuple[str, bytes], ...]:
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="coordd"))
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message="as scripted", details=[packed])
    return (("grpc-status-details-bin", status.SerializeToString()),)


@pytest.fixture
def wire() -> Iterator[_Wire]:
    with ThreadPoolExecutor(1) as pool:
        yield _Wire(pool)


def _lock_once(client: Client, **options: Any) -> int:
    with client.lock("tweet:1", kind="reply", **options) as held:
        assert 0 < held.left_s <= 900
        return held.fencing_token


def test_a_lock_is_taken_and_given_back(wire: _Wire):
    result = wire.run(_lock_once)
    asked = wire.answer("RequestLock", pb.RequestLockResponse(granted=lock()))
    released = wire.answer("ReleaseLock", pb.ReleaseLockResponse())
    assert result.result() == 7
    assert (asked.item, asked.worker, asked.kind) == ("tweet:1", "w1", "reply")
    assert (released.fencing_token, released.outcome) == (7, Outcome.SUCCESS)


def test_an_exception_records_a_failure(wire: _Wire):
    def script(client: Client) -> None:
        with client.lock("tweet:1", kind="reply"):
            raise LookupError("of the work")

    result = wire.run(script)
    wire.answer("RequestLock", pb.RequestLockResponse(granted=lock()))
    assert wire.answer("ReleaseLock", pb.ReleaseLockResponse()).outcome == Outcome.FAILURE
    with pytest.raises(LookupError):
        result.result()


def test_unavailable_is_retried_under_the_same_request_id(wire: _Wire):
    result = wire.run(_lock_once)
    first = wire.fail("RequestLock", grpc.StatusCode.UNAVAILABLE, "DRAINING")
    second = wire.answer("RequestLock", pb.RequestLockResponse(granted=lock()))
    wire.fail("ReleaseLock", grpc.StatusCode.UNAVAILABLE, "DRAINING")
    wire.answer("ReleaseLock", pb.ReleaseLockResponse())
    assert result.result() == 7
    assert first == second


def test_renew_extends_and_reports_a_loss(wire: _Wire):
    def script(client: Client) -> tuple[float, float]:
        with client.lock("tweet:1", kind="reply", ttl=10) as held:
            before_s = held.left_s
            held.renew()
            after_s = held.left_s
            with pytest.raises(LeaseLost):
                held.renew()
        return before_s, after_s

    result = wire.run(script)
    wire.answer("RequestLock", pb.RequestLockResponse(granted=lock(expires_in_s=10)))
    wire.answer("RenewLock", pb.RenewLockResponse(lock=lock(expires_in_s=99)))
    wire.fail("RenewLock", grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")
    wire.fail("ReleaseLock", grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")
    with pytest.raises(LeaseLost) as caught:
        result.result()
    assert caught.value.reason == "LEASE_LOST"


def test_a_wait_tells_its_place_and_survives_a_break(wire: _Wire):
    places: list[Queued] = []
    result = wire.run(lambda client: _lock_once(client, wait=30, on_queued=places.append))
    queued = pb.AwaitLockResponse(queued={"position": 1})
    first = wire.stream("AwaitLock", code=grpc.StatusCode.UNAVAILABLE)
    second = wire.stream("AwaitLock", queued, pb.AwaitLockResponse(granted=lock()))
    wire.answer("ReleaseLock", pb.ReleaseLockResponse())
    assert result.result() == 7
    assert [place.position for place in places] == [1]
    assert first.request_id == second.request_id
    assert second.wait_timeout.ToNanoseconds() < first.wait_timeout.ToNanoseconds()


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (common_pb2.REFUSAL_REASON_WAIT_TIMEOUT, WaitTimeout),
        (common_pb2.REFUSAL_REASON_SUPERSEDED, Superseded),
    ],
)
def test_a_wait_that_ends_without_a_grant_is_over(wire: _Wire, reason: Any, expected: type[Refused]):
    result = wire.run(lambda client: _lock_once(client, wait=30))
    wire.stream("AwaitLock", pb.AwaitLockResponse(refused=common_pb2.Refusal(reason=reason)))
    with pytest.raises(expected):
        result.result()


def test_a_permit_is_settled_with_the_response(wire: _Wire):
    def script(client: Client) -> None:
        with client.permit("post") as held:
            held.response(429, {"Retry-After": "7"})

    result = wire.run(script)
    permit = rate_limit_pb2.Permit(permit_id=5, endpoint="post", worker="w1", use_within={"seconds": 10})
    wire.answer("CanMakeRequest", rate_limit_pb2.CanMakeRequestResponse(granted=permit))
    settled = wire.answer("RecordUsage", rate_limit_pb2.RecordUsageResponse())
    result.result()
    assert (settled.permit_id, settled.status_code, settled.headers[0].value) == (5, 429, "7")


def test_plain_calls_and_lists(wire: _Wire):
    def script(client: Client) -> tuple[bool, int]:
        return client.cancel_schedule(8), len(list(client.locks()))

    result = wire.run(script)
    assert wire.answer("CancelSchedule", rate_limit_pb2.CancelScheduleResponse()).worker == "w1"
    wire.answer("ListLocks", pb.ListLocksResponse(locks=[lock(), lock()], next_page_token="2"))  # noqa: S106 - a page, not a secret
    assert wire.answer("ListLocks", pb.ListLocksResponse(locks=[lock()])).page_token == "2"  # noqa: S105
    assert result.result() == (False, 3)


def test_nothing_is_left_after_the_block(wire: _Wire):
    def script(client: Client) -> tuple[str, float]:
        with client.lock("tweet:1", kind="reply") as held:
            pass
        return repr(held), held.left_s

    result = wire.run(script)
    wire.answer("RequestLock", pb.RequestLockResponse(granted=lock()))
    wire.answer("ReleaseLock", pb.ReleaseLockResponse())
    assert result.result() == ("HeldLock('tweet:1', kind='reply', token=7, ended)", 0.0)


def test_closing_while_something_is_held_names_it(wire: _Wire):
    def script(client: Client) -> str:
        with client.lock("tweet:1", kind="reply"), pytest.warns(ResourceWarning) as warned:
            client.close()
        return str(warned[0].message)

    result = wire.run(script)
    wire.answer("RequestLock", pb.RequestLockResponse(granted=lock()))
    wire.answer("ReleaseLock", pb.ReleaseLockResponse())
    assert "holds HeldLock('tweet:1', kind='reply', token=7, left 899 s)" in result.result()


@pytest.mark.parametrize("reason", ["LEASE_LOST", ""])
def test_grpcs_own_error_is_shown_only_where_the_daemon_gave_no_reason(wire: _Wire, reason: str):
    result = wire.run(lambda client: client.get_lock("x"))
    wire.fail("GetLock", grpc.StatusCode.FAILED_PRECONDITION, reason)
    error = result.exception()
    assert isinstance(error, CoorddError)
    assert error.__suppress_context__
    assert (error.__cause__ is None) == bool(reason)


def test_a_call_that_the_daemon_cancels_is_tried_again(wire: _Wire):
    result = wire.run(lambda client: _lock_once(client, wait=30))
    wire.stream("AwaitLock", code=grpc.StatusCode.CANCELLED)
    wire.stream("AwaitLock", pb.AwaitLockResponse(granted=lock()))
    wire.fail("ReleaseLock", grpc.StatusCode.CANCELLED, "")
    wire.answer("ReleaseLock", pb.ReleaseLockResponse())
    assert result.result() == 7


async def test_over_a_real_network(server: ScriptedServer):
    async def wait(request: Any, context: Any) -> Any:  # noqa: ARG001
        yield pb.AwaitLockResponse(queued={"position": 1})
        yield pb.AwaitLockResponse(granted=lock())

    server.answers |= {"AwaitLock": wait, "GetLock": reply(pb.GetLockResponse(waiters=2))}

    def script() -> tuple[int, int]:
        with Client(server.address, worker="w1", config=_FAST) as client:
            return _lock_once(client, wait=5), client.get_lock("tweet:1").waiters

    assert await asyncio.to_thread(script) == (7, 2)
    assert server.names == ["AwaitLock", "ReleaseLock", "GetLock"]
