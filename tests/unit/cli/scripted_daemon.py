"""A real gRPC server that answers every RPC of the contract as a test says."""

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from coordd.v1 import admin_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2

_PROTOS = (admin_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2)


class Refuse:
    """An answer that is an error as the daemon sends it."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        text: str,
        *,
        retry_s: int | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        details = [AnyMessage(), AnyMessage()]
        details[0].Pack(error_details_pb2.ErrorInfo(reason=reason, domain="coordd", metadata=metadata))
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=retry_s or 0)))
        self.status = status_pb2.Status(code=code.value[0], message=text)
        self.status.details.extend(details if retry_s is not None else details[:1])


Answer = Message | Refuse | list[Message | Refuse] | Callable[[grpc.ServicerContext], Iterable[Message]]


class ScriptedDaemon:
    """Answers RPCs as told, in turn and then the last answer again, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.timeouts: list[float | None] = []
        self._answers: dict[str, list[Answer]] = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        for proto in _PROTOS:
            for service in proto.DESCRIPTOR.services_by_name.values():
                handlers = {method.name: self._handler(method) for method in service.methods}
                self._server.add_generic_rpc_handlers(
                    (grpc.method_handlers_generic_handler(service.full_name, handlers),)
                )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def answers(self, rpc: str, *answers: Answer) -> None:
        """Say what an RPC answers: a message, an error, a list of them for a stream, or a function."""
        self._answers[rpc] = list(answers)

    def stop(self) -> None:
        """Stop, cancelling what is open."""
        self._server.stop(grace=None).wait()

    def _next(self, rpc: str, request: Any, context: grpc.ServicerContext) -> Answer:
        self.requests.append(request)
        self.timeouts.append(context.time_remaining())
        answers = self._answers[rpc]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _handler(self, method: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            return _sent(self._next(method.name, request, context), context)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            answer: Any = self._next(method.name, request, context)
            for message in answer(context) if callable(answer) else answer:
                yield _sent(message, context)

        make = (
            grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(
            stream if method.server_streaming else unary,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )


def _sent(answer: Any, context: grpc.ServicerContext) -> Any:
    if isinstance(answer, Refuse):
        context.abort_with_status(rpc_status.to_status(answer.status))
    return answer
