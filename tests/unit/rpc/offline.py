"""The daemon's servicers under grpcio-testing's server: no network, no port, real engine and store.

grpcio-testing knows blocking servicers only: it calls a method in a thread of its own and takes what it
returns or yields. `Blocking` stands between: it runs the coroutines that the daemon registers, wrapped as the
daemon wraps them, on an event loop in another thread, and hands their messages and statuses back.
"""

import asyncio
import queue
import threading
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc_testing
from google.rpc import error_details_pb2, status_pb2

from coordd import rpc
from coordd.config import Settings
from coordd.engine import Engine
from coordd.store.sqlite import SqliteStore
from coordd.v1 import (
    admin_pb2,
    bundle_pb2,
    engagement_pb2,
    rate_limit_pb2,
    reservation_pb2,
    session_pb2,
)

Result = TypeVar("Result")
_FILES = (engagement_pb2, reservation_pb2, rate_limit_pb2, bundle_pb2, session_pb2, admin_pb2)
METHODS = {
    method.name: method
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


class Ended(Exception):
    """What `abort` raises, to end a call with a status."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Any) -> None:
        super().__init__(details)
        self.code, self.details, self.trailers = code, details, trailers


class AsyncContext:
    """As much of grpc.aio's servicer context as the daemon uses."""

    def __init__(self, context: Any, messages: "queue.Queue[Any] | None" = None) -> None:
        self._context = context
        self._messages = messages

    def invocation_metadata(self) -> Any:
        return self._context.invocation_metadata() if self._context is not None else ()

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> None:
        raise Ended(code, details, trailing_metadata)

    async def write(self, message: Any) -> None:
        assert self._messages is not None
        self._messages.put(message)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def send_initial_metadata(self, metadata: Any) -> None:
        self._context.send_initial_metadata(metadata)


class Blocking:
    """A servicer as grpcio-testing wants it, over the handlers of one service."""

    def __init__(self, handlers: Mapping[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._handlers = handlers
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        handler = self._handlers[name]
        return (
            self._stream(handler.unary_stream)
            if handler.response_streaming
            else self._unary(handler.unary_unary)
        )

    def _unary(self, behaviour: Any) -> Any:
        def call(request: Any, context: Any) -> Any:
            running = asyncio.run_coroutine_threadsafe(behaviour(request, AsyncContext(context)), self._loop)
            return _result(running, context)

        return call

    def _stream(self, behaviour: Any) -> Any:
        def call(request: Any, context: Any) -> Iterator[Any]:
            messages: queue.Queue[Any] = queue.Queue()
            running = asyncio.run_coroutine_threadsafe(
                behaviour(request, AsyncContext(context, messages)), self._loop
            )
            running.add_done_callback(lambda _: messages.put(None))
            context.add_callback(running.cancel)
            yield from iter(messages.get, None)
            if not running.cancelled():
                _result(running, context)

        return call


def _result(running: Any, context: Any) -> Any:
    try:
        return running.result()
    except Ended as ended:
        # Not `context.abort`, which in grpcio-testing drops the trailing metadata.
        context.set_trailing_metadata(ended.trailers)
        context.set_code(ended.code)
        context.set_details(ended.details)
        return None


class Offline:
    """An engine over a store in `directory`, and the services on it, called without a network."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.run(self._start(directory, settings))

    async def _start(self, directory: Path, settings: Settings) -> None:
        store = SqliteStore(directory / "coordd.db")
        retention_ns = settings.store.history_retention_ns
        self.engine = Engine(settings.rules(), store, history_retention_ns=retention_ns)
        await self.engine.start()
        backend = rpc.Backend(
            engine=self.engine,
            wait_ns_default=settings.waits.default_timeout_ns,
            history_ns=retention_ns,
            version="test",
        )
        calls = rpc.Calls()
        services = [service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()]
        servicers = {
            service: Blocking(calls.handlers(add, servicer(backend))[1], self.loop)
            for service, (servicer, add) in zip(services, rpc.SERVICERS, strict=True)
        }
        self.server = grpc_testing.server_from_dictionary(servicers, grpc_testing.strict_real_time())

    def close(self) -> None:
        self.run(self.engine.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine where the engine lives."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def ask(self, request: Any) -> Any:
        """Call the unary method that takes this message; return the reply."""
        reply, _, code, details = self._unary(request)
        assert code is grpc.StatusCode.OK, details
        return reply

    def refuse(self, request: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
        """Call the unary method that takes this message; return code, reason and metadata of its failure."""
        _, trailers, code, _ = self._unary(request)
        return code, *error_info(trailers)

    def _unary(self, request: Any) -> Any:
        method = METHODS[type(request).__name__.removesuffix("Request")]
        return self.server.invoke_unary_unary(method, (), request, None).termination()

    def stream(self, request: Any) -> Any:
        """Begin the streaming method that takes this message."""
        method = METHODS[type(request).__name__.removesuffix("Request")]
        return self.server.invoke_unary_stream(method, (), request, None)


def error_info(trailers: Any) -> tuple[str, dict[str, str]]:
    """Return reason and metadata of the one ErrorInfo in the trailing metadata."""
    details = status_pb2.Status.FromString(dict(trailers)["grpc-status-details-bin"]).details
    [info] = [detail for detail in details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    unpacked = error_details_pb2.ErrorInfo()
    info.Unpack(unpacked)
    assert unpacked.domain == "coordd"
    return unpacked.reason, dict(unpacked.metadata)
