"""What surrounds every call of `coordd.v1`: failures become statuses, calls are logged and counted.

Rules: a servicer raises and never aborts; a stream's generator is closed within the call, so that it learns
at its `yield` that a message could not be sent; nothing unforeseen leaves the daemon but a reference. Must
not know: any service.

Why handlers are wrapped once at registration and not by an interceptor at each call: it costs nothing per
call.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError

from coordd.access import Denial, Role, least_role
from coordd.core.errors import CommandError
from coordd.engine import EngineError
from coordd.rpc import errors
from coordd.rpc.admission import Admission
from coordd.rpc.admission_handlers import admitted_stream, admitted_unary
from coordd.rpc.admission_methods import CRITICAL, SHEDDABLE
from coordd.rpc.admission_refusals import Overloaded
from coordd.rpc.audit import AuditTrail
from coordd.rpc.call import Call, CallObserver
from coordd.rpc.guard import Guard
from coordd.store.protocol import Unreadable

# Streams that last until somebody ends them: no shutdown waits for them.
_ENDLESS: Final = frozenset(
    {
        "/coordd.v1.AdminService/WatchEvents",
        "/coordd.v1.AdminService/WatchEscalations",
        "/coordd.v1.SessionService/Connect",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# grpc's stubs know handlers and contexts of the blocking API only; a test's context is its own.
Context = Any
Handler = Any
Behaviour = Callable[[Any, Context], Awaitable[Any]]
Stream = Callable[[Any, Context], AsyncGenerator[Any, None]]
Register = Callable[[Any, Any], None]
Begin = Callable[[Context], Call]


class Calls:
    """The calls under way, and the wrapping that keeps count of them.

    Args: guard: who may call what; None: anybody anything.  trail: where operators' actions are written.
    admission: which are refused when there is too much to do; None: none is.  observer: sees each call.
    slow_ns: a unary call that takes longer is warned of; 0: none is.
    """

    def __init__(
        self,
        guard: Guard | None = None,
        trail: AuditTrail | None = None,
        *,
        admission: Admission | None = None,
        observer: CallObserver | None = None,
        slow_ns: int = 0,
    ) -> None:
        # By full name of their method, as wrapped.
        self.served: dict[str, Handler] = {}
        self._admission = admission
        self._observer = observer
        self._slow_ns = slow_ns
        self._guard = guard
        self._trail = trail or AuditTrail()
        self._begun = self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Return once no call is under way but endless ones."""
        await self._idle.wait()

    async def quiet(self, for_s: float) -> None:
        """Return once no call but endless ones has been under way for so many seconds."""
        begun = -1
        while begun != self._begun:
            await self._idle.wait()
            begun = self._begun
            await asyncio.sleep(for_s)

    def handlers(self, register: Register, servicer: object) -> tuple[str, dict[str, Handler]]:
        """Return a service's name and its wrapped handlers by method.

        Args: register: the service's generated `add_..._to_server`.
        """
        registry = _Registry()
        register(servicer, registry)
        [(service, handlers)] = registry.services.items()
        wrapped = {name: self._wrapped(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self.served.update({f"/{service}/{name}": handler for name, handler in wrapped.items()})
        return service, wrapped

    def lanes(self) -> Iterator[tuple[str, dict[str, Handler]]]:
        """Yield the lanes for CRITICAL requests as services, once all that they lead to has its handlers."""
        for lane, method in CRITICAL.items():
            self.served[lane] = self.served[method]
            _, service, name = lane.split("/")
            yield service, {name: self.served[method]}

    def _wrapped(self, method: str, handler: Handler) -> Handler:
        parse, guard = tolerant(handler.request_deserializer), self._guard
        if handler.request_streaming:
            both = sending(handler.stream_stream)
            both = self._finished(method, checked(guard.both(method, both) if guard else both))
            return grpc.stream_stream_rpc_method_handler(both, parse, handler.response_serializer)
        if handler.response_streaming:
            stream = sending(self._admitted(method, handler))
            stream = self._audited(method, guard.stream(method, stream) if guard else stream)
            stream = self._finished(method, stream)
            return grpc.unary_stream_rpc_method_handler(stream, parse, handler.response_serializer)
        unary = self._admitted(method, handler)
        unary = self._audited(method, guard.unary(method, unary) if guard else unary)
        unary = self._finished(method, unary, self._slow_ns)
        return grpc.unary_unary_rpc_method_handler(unary, parse, handler.response_serializer)

    def _audited(self, method: str, behaviour: Behaviour) -> Behaviour:
        if least_role(method) is not Role.OPERATOR:
            return behaviour
        return self._trail.watched(method, behaviour, self._guard.who if self._guard else _nobody)

    def _finished(self, method: str, behaviour: Behaviour, slow_ns: int = 0) -> Any:
        # A stream lasts as long as what it waits for: it is never slow.
        begin = partial(Call, method, self._observer, slow_ns)
        return self._counted(method, guarded(begin, behaviour))

    def _admitted(self, method: str, handler: Handler) -> Any:
        behaviour, admission = handler.unary_stream or handler.unary_unary, self._admission
        if admission is None or method not in SHEDDABLE:
            return behaviour
        return (admitted_stream if handler.response_streaming else admitted_unary)(behaviour, admission)

    def _counted(self, method: str, behaviour: Behaviour) -> Any:
        if method in _ENDLESS:
            return behaviour

        async def counted(request: Any, context: Context) -> Any:
            self._begun += 1
            self._under_way += 1
            self._idle.clear()
            try:
                return await behaviour(request, context)
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self._idle.set()

        return counted


class _Registry:
    """Takes from generated code what it would give to a server."""

    def __init__(self) -> None:
        self.services: dict[str, Mapping[str, Handler]] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Take nothing: the same handlers come by method, too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Take the handlers of one service."""
        self.services[service] = handlers


class Malformed:
    """Stands for a request whose bytes are no message."""


class MalformedRequest(Exception):
    """The request's bytes are no message."""


def tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return `parse` with Malformed in place of an exception, of which grpc would make UNKNOWN."""

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return Malformed()

    return parsed


def guarded(begin: Begin, behaviour: Behaviour) -> Behaviour:
    """Return `behaviour` with its failures as statuses."""

    async def guarded(request: Any, context: Context) -> Any:
        with begin(context) as call:
            try:
                _check(request)
                return await behaviour(request, context)
            except grpc.aio.BaseError:
                raise
            except Exception as error:  # noqa: BLE001  -- every one becomes a status
                await _abort(call, error, context)

    return guarded


def sending(behaviour: Stream) -> Behaviour:
    """Return `behaviour`, a generator of messages, as a coroutine that sends them.

    Why not hand the generator to grpc: when a message can't be sent, grpc drops the generator where it
    stands, and a grant would be lost until the garbage collector finds it.
    """
    if inspect.iscoroutinefunction(behaviour):  # it sends them itself
        return behaviour

    async def send(request: Any, context: Context) -> None:
        async with aclosing(behaviour(request, context)) as messages:
            async for message in messages:
                await context.write(message)

    return send


def checked(behaviour: Behaviour) -> Behaviour:
    """Return `behaviour`, which takes a stream of requests, with each of them checked."""
    return lambda requests, context: behaviour(_checked(requests), context)


async def _checked(requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    async for request in requests:
        _check(request)
        yield request


def _nobody(_: Context) -> str:
    return ""


def _check(request: Any) -> None:
    if isinstance(request, Malformed):
        raise MalformedRequest


async def _abort(call: Call, error: Exception, context: Context) -> None:
    failure = error.refusal.failure if isinstance(error, Overloaded) else _failure(call, error)
    call.code, call.reason = failure.code.name, failure.reason
    await failure.abort(context, call.id)


def _failure(call: Call, error: Exception) -> errors.Failure:
    match error:
        case CommandError():
            return errors.of_command(error)
        case EngineError():
            return errors.of_engine(error)
        case Denial():
            return errors.of_denial(error)
        case MalformedRequest():
            return errors.of_message(call.method)
        case Unreadable():
            _logger.error(
                "a question can't be answered from the store",
                method=call.method,
                error=str(error),
            )
            return errors.of_unreadable()
    _logger.error("internal error", method=call.method, reference=call.id, exc_info=error)
    return errors.of_defect(call.id)
