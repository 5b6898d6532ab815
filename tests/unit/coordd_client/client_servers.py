"""A real gRPC server whose answers a test writes, with a record of what it was asked."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf import any_pb2, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from coordd.v1 import admin_pb2, bundle_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2, session_pb2
from coordd_client import Config
from coordd_client.testing._timeline import Timeline

METHODS: dict[str, MethodDescriptor] = {
    method.name: method
    for file in (engagement_pb2, rate_limit_pb2, reservation_pb2, bundle_pb2, session_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
# What only those who coordinate call is not the workers' own.
_ALL = METHODS | {
    method.name: method
    for service in admin_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
Answer = Callable[[Any, Any], Any]
# A client that retries without letting a test wait.
FAST = Config(call_timeout_s=20.0, backoff_s=0.005, backoff_max_s=0.02)


class ScriptedServer:
    """Answers as `answers` say, by method name: `async def (request, context)`, streams by generators."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.calls: list[tuple[str, Any]] = []
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def requests(self, name: str) -> list[Any]:
        return [request for each, request in self.calls if each == name]

    async def start(self) -> None:
        """Starts on a free port, or again on the one it had."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        self.port = self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        """Goes away as in a crash: nothing that is under way is answered."""
        if self._server is not None:
            await self._server.stop(grace=None)

    async def restart(self) -> None:
        await self.stop()
        await self.start()


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        name = details.method.rpartition("/")[2]
        method = _ALL[name]
        codecs = {
            "request_deserializer": message_factory.GetMessageClass(method.input_type).FromString,
            "response_serializer": message_factory.GetMessageClass(method.output_type).SerializeToString,
        }
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(name), **codecs)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(name), **codecs)
        return grpc.unary_unary_rpc_method_handler(self._call(name), **codecs)

    def _call(self, name: str) -> Answer:
        async def call(request: Any, context: Any) -> Any:
            self._server.calls.append((name, request))
            return await self._server.answers[name](request, context)

        return call

    def _stream(self, name: str) -> Answer:
        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            self._server.calls.append((name, request))
            async with contextlib.aclosing(self._server.answers[name](request, context)) as messages:
                async for message in messages:
                    yield message

        return stream


async def fail(
    context: Any,
    code: grpc.StatusCode,
    reason: str = "",
    metadata: dict[str, str] | None = None,
    *,
    retry_s: int | None = None,
) -> None:
    """Ends a call with the details that the daemon sends."""
    details = []
    if reason:
        info = error_details_pb2.ErrorInfo(reason=reason, domain="coordd", metadata=metadata or {})
        details.append(info)
    if retry_s is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay={"seconds": retry_s}))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message="as scripted", details=packed)
    await context.abort_with_status(rpc_status.to_status(status))


def reply(message: Any) -> Answer:
    """Answers every call with `message`."""

    async def answer(request: Any, context: Any) -> Any:  # noqa: ARG001
        return message

    return answer


def lock(token: int = 7, *, expires_in_s: float = 900.0, **fields: Any) -> engagement_pb2.Lock:
    """Returns a lock as granted."""
    granted = engagement_pb2.Lock(item="tweet:1", kind="reply", worker="w1", fencing_token=token, **fields)
    granted.expires_in.FromNanoseconds(round(expires_in_s * 1e9))
    return granted


def stepped_clock() -> Timeline:
    """Returns a client's time that moves by steps, so that no lease is lost to a machine that is busy."""
    return Timeline(lambda: None)
