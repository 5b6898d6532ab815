"""One call under way: when it is slow, what is shown of it, what its id costs."""

import asyncio
from typing import Any

import grpc
import pytest
import structlog

from coordd.rpc.call import Call, add_call_id

METHOD = "/coordd.v1.EngagementService/RequestLock"


class Context:
    """A context that counts how often its metadata are looked at."""

    def __init__(self, *metadata: tuple[str, Any]) -> None:
        self.looks = 0
        self._metadata = metadata

    def invocation_metadata(self) -> Any:
        self.looks += 1
        return self._metadata


class Seen:
    """An observer that writes down what it sees."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def begun(self, call: Call) -> None:
        self.calls.append(("begun", call.method))

    def ended(self, call: Call, took_ns: int) -> None:
        assert took_ns > 0
        self.calls.append(("ended", call.method, call.code, call.reason))


def test_a_call_that_takes_long_is_warned_of() -> None:
    with structlog.testing.capture_logs() as logs:
        for slow_ns in (0, 1, 10**12):
            with Call(METHOD, None, slow_ns, Context()):
                pass
    [warning] = [line for line in logs if line["log_level"] == "warning"]
    assert (warning["event"], warning["method"], warning["code"]) == ("slow call", METHOD, "OK")


def test_an_id_is_made_only_when_something_is_said_of_the_call() -> None:
    context = Context(("x-request-id", "abc"))
    with Call(METHOD, None, 0, context):
        assert context.looks == 0
        line = add_call_id(None, "info", {"event": "x"})
        assert line == {"event": "x", "call_id": "abc"}
        add_call_id(None, "info", {})
    assert context.looks == 1


def test_an_id_of_bytes_is_not_taken_and_the_same_is_made_once() -> None:
    with Call(METHOD, None, 0, Context(("x-request-id", b"abc"))) as call:
        assert call.id != "abc"
        assert call.id == call.id


async def test_outside_of_calls_there_is_no_id() -> None:
    async def inside() -> None:
        with Call(METHOD, None, 0, Context()):
            assert "call_id" in add_call_id(None, "info", {})

    await asyncio.create_task(inside())
    assert add_call_id(None, "info", {}) == {}


@pytest.mark.parametrize(
    ("error", "code"),
    [(asyncio.CancelledError(), "CANCELLED"), (grpc.aio.AbortError(), "CANCELLED"), (None, "OK")],
)
def test_an_observer_sees_how_a_call_ends(error: BaseException | None, code: str) -> None:
    seen = Seen()
    try:
        with Call(METHOD, seen, 0, Context()):
            if error is not None:
                raise error
    except (asyncio.CancelledError, grpc.aio.AbortError):
        pass
    assert seen.calls == [("begun", METHOD), ("ended", METHOD, code, "")]
