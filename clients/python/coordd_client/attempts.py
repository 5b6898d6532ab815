"""One try at a call: what is sent besides the request, how it ends and, with OpenTelemetry, its span.

A span lasts as long as one try; a retry has its own. It is a child of whatever span is current where the call
is made, and the daemon's own spans are its children, by the `traceparent` in the metadata. Without a provider
nothing of OpenTelemetry is imported.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import grpc

from coordd_client.target import Metadata

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

# From a method's path to a block with what to send besides the request.
Attempts = Callable[[str], AbstractContextManager[Metadata]]


def attempts(metadata: Metadata, traces: "TracerProvider | None") -> Attempts:
    """Returns what each try at a call is made within."""
    if traces is None:
        same = nullcontext(metadata)
        return lambda _: same
    return _traced(metadata, traces)


def _traced(metadata: Metadata, traces: "TracerProvider") -> Attempts:
    from opentelemetry import propagate, trace  # noqa: PLC0415  -- only where its user has it

    tracer = traces.get_tracer("coordd_client")

    @contextmanager
    def attempt(path: str) -> Iterator[Metadata]:
        service, _, method = path[1:].partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        span = tracer.start_span(path[1:], kind=trace.SpanKind.CLIENT, attributes=attributes)
        # Never made current: a stream is read a message at a time, in whatever context its reader has.
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        try:
            yield (*metadata, *carrier.items())
            _end(span, grpc.StatusCode.OK)
        except GeneratorExit:
            # Whoever read the stream has what it came for.
            _end(span, grpc.StatusCode.OK)
            raise
        except BaseException as error:
            _end(span, _code(error))
            raise

    return attempt


@contextmanager
def cancelled(call: Any) -> Iterator[Any]:
    """Gives a call, and cancels it at the end: of one that has ended by itself that is nothing."""
    try:
        yield call
    finally:
        call.cancel()


def _end(span: "Span", code: grpc.StatusCode) -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415  -- only where its user has it

    span.set_attribute("rpc.grpc.status_code", code.value[0])
    if code is not grpc.StatusCode.OK:
        span.set_status(Status(StatusCode.ERROR, code.name))
    span.end()


def _code(error: BaseException) -> grpc.StatusCode:
    code: Any = getattr(error, "code", None)
    if isinstance(error, grpc.RpcError) and code is not None:
        status: grpc.StatusCode = code()
        return status
    return grpc.StatusCode.CANCELLED if isinstance(error, asyncio.CancelledError) else grpc.StatusCode.UNKNOWN
