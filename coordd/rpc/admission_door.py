"""The door: calls are looked at as they arrive, and refused there, before gRPC makes anything of them.

Owns: how calls are taken from gRPC's core, and which of them its own handling never sees. Rules: every call
that is let in is handled as gRPC would have handled it, by the same handlers, in the order of arrival. One
that is refused costs a fraction of one that is answered, and that is the point: at three times what the
daemon can do two in three are refused, and were each to cost as much as an answer, there would be little left
for the third. Many calls of a method are asked for at once; gRPC's own loop asks for one, and takes the next
when it has come round.
Must not know: services, the rule of admission.

This leans on internals of grpcio (docs/adr/0019): if they are not as expected, the same rule is applied by
the handlers alone, and a refusal costs what an answer does.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Final

import grpc

from coordd.core.limits import CALLS_UNDER_WAY_MAX, MILLISECOND
from coordd.rpc.admission import Admission, Place
from coordd.rpc.admission_methods import CRITICAL, SHEDDABLE
from coordd.rpc.admission_refusals import refusals
from coordd.rpc.admission_shares import NOBODY
from coordd.rpc.call import Call, CallObserver
from coordd.rpc.namespaces import named

# Calls of one method that are asked for at once. The more, the fewer stand in gRPC's own line; what may be
# refused may as well stand there, and is ended there at less cost than here.
_TAKERS: Final = 64
_TAKERS_OF_SHEDDABLE: Final = 16

# How often calls in hand are looked at, at least; and how long a message may be on its way after its headers
# before its call has to find a place anew.
_TURN_S: Final = 0.005
_MESSAGE_NS: Final = 50 * MILLISECOND

# Not typed, and not to be: what of it is used is written down in _NEEDED.
_core: Final[Any] = import_module("grpc._cython.cygrpc")
_aio: Final[Any] = import_module("grpc.aio._server")
_NEEDED: Final = (
    "ExecuteBatchError",
    "SendInitialMetadataOperation",
    "_RequestCallError",
    "_ServicerContext",
    "_handle_rpc",
    "_schedule_rpc_coro",
    "_send_error_status_from_server",
)


class Arrival:
    """A call that was let in: when, its place, None if it needs none, and whether its handler has begun."""

    __slots__ = ("at", "has_begun", "place")

    def __init__(self, at: int, place: Place | None) -> None:
        self.at = at
        self.place = place
        self.has_begun = False


# Of the call whose handler runs; None: gRPC took it by itself.
arrival: Final[ContextVar[Arrival | None]] = ContextVar("arrival", default=None)


class _Core(_core.AioServer):  # type: ignore[misc]  # Any
    """GRPC's server, whose own loop asks for no calls of the methods that the door asks for."""

    taken_elsewhere: frozenset[bytes] = frozenset()

    def _make_request_call_future(self, method: bytes | None) -> Any:
        if method in self.taken_elsewhere:
            # Never done. It is cancelled when the server stops.
            return asyncio.get_running_loop().create_future()
        return super()._make_request_call_future(method)


class _Server(_aio.Server):  # type: ignore[misc]  # Any
    # Not as it does itself, which would be to make another core.
    def __init__(self, options: Sequence[tuple[str, int]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = _Core(self._loop, None, (), (), tuple(options), None)


def step_aside() -> None:
    """Let the place of the call that is handled be another's: it costs nothing any more but time."""
    arrived = arrival.get()
    if arrived is not None and arrived.place is not None:
        arrived.place.leave()


def new_server(options: Sequence[tuple[str, int]]) -> grpc.aio.Server:
    """Return a server of grpc.aio that can have a door, if this grpcio lets it."""
    if all(hasattr(_core, name) for name in _NEEDED):
        with suppress(TypeError):
            return _Server(options)
    return grpc.aio.server(options=options)


class Door:
    """The door of a server, for these handlers by full name of their method; to be made before it starts.

    Args: observer: sees the calls that are refused here; of the others their handlers tell.
    """

    def __init__(
        self,
        server: Any,
        handlers: Mapping[str, Any],
        admission: Admission,
        observer: CallObserver | None = None,
    ) -> None:
        self._server: Any = getattr(server, "_server", None)
        self._handlers = handlers
        self._admission = admission
        self._observer = observer
        # Calls in hand for which there is neither a place nor the time to refuse them, in order of arrival.
        self._in_hand: deque[asyncio.Future[None]] = deque()
        self._is_timed = False
        # Those let in, until their messages have had time to come.
        self._let: deque[Arrival] = deque()
        self._tasks_max = sum(map(_takers, handlers)) + CALLS_UNDER_WAY_MAX
        # The loop itself keeps only weak references to its tasks.
        self._tasks: set[asyncio.Task[None]] = set()
        if isinstance(self._server, _Core):
            self._server.taken_elsewhere = frozenset(method.encode() for method in handlers)

    @property
    def is_possible(self) -> bool:
        """Whether this grpcio is as expected; else calls come by gRPC's own way."""
        return isinstance(self._server, _Core)

    def open(self) -> None:
        """Begin to take calls, once the server runs. It closes by itself when the server stops.

        Never cancel what this starts: gRPC's core writes into a call that was asked for until it fails it.
        """
        if self.is_possible:
            self._loop = asyncio.get_running_loop()
            self._admission.on_room = self._on_room
            for method in self._handlers:
                for _ in range(_takers(method)):
                    self._keep(self._loop.create_task(self._take(method)))

    def resolve_handler(self, details: Any) -> Any:
        """Return the handler of a call; gRPC asks."""
        return self._handlers[details.method]

    # --------------------------------------------------------------------------------------------------------

    async def _take(self, method: str) -> None:
        server, name = self._server, method.encode()
        is_critical = method in CRITICAL
        is_vital = not is_critical and method not in SHEDDABLE
        while server.is_running():
            try:
                call = await server._request_registered_call(name)
            except _core._RequestCallError:
                continue  # the server stops, or that call has gone
            if len(self._tasks) >= self._tasks_max:
                # What waits, too: whatever it is, there would be no end to it.
                await self._refuse(method, call, time.monotonic_ns())
            elif is_vital:
                self._let_in(method, call, Arrival(time.monotonic_ns(), None))
            else:
                await self._settle(method, call, is_critical=is_critical)

    async def _settle(self, method: str, call: Any, *, is_critical: bool) -> None:
        """Let a call in, or refuse it; it waits in hand while there is room for neither."""
        arrived_at, namespace = time.monotonic_ns(), self._namespace(call)
        while True:
            now = time.monotonic_ns()
            self._give_up_places(now)
            place = self._admission.admit(is_critical=is_critical, namespace=namespace)
            if place is not None:
                arrived = Arrival(arrived_at, place)
                self._let.append(arrived)
                return self._let_in(method, call, arrived)
            if self._admission.may_refuse(now):
                return await self._refuse(method, call, now)
            await self._turn()

    def _namespace(self, call: Any) -> str:
        shares = self._admission.shares
        if shares.is_one:
            return NOBODY
        context = _core._ServicerContext(call, None, None, self._loop)
        return shares.known(named(context))

    async def _turn(self) -> None:
        if not self._is_timed:
            self._time()
        turn = self._loop.create_future()
        self._in_hand.append(turn)
        await turn

    def _next_in_hand(self) -> None:
        if self._in_hand and not (turn := self._in_hand.popleft()).done():
            turn.set_result(None)

    def _on_room(self) -> None:
        # A place for one, and now and then the time to refuse one more.
        self._next_in_hand()
        self._next_in_hand()

    def _on_time(self) -> None:
        # By now there is time to refuse one, whatever has been answered.
        self._is_timed = False
        self._next_in_hand()
        if self._in_hand:
            self._time()

    def _time(self) -> None:
        self._is_timed = True
        self._loop.call_later(_TURN_S, self._on_time)

    def _give_up_places(self, now: int) -> None:
        """Take the places back of calls whose messages have not come: whoever sends none would keep them."""
        while self._let and self._let[0].at + _MESSAGE_NS < now:
            arrived = self._let.popleft()
            if not arrived.has_begun and arrived.place is not None:
                arrived.place.leave()

    def _let_in(self, method: str, call: Any, arrived: Arrival) -> None:
        # The task, and the one it makes in turn, begin with a copy of this.
        arrival.set(arrived)
        handling = _core._handle_rpc(method, self, (), call, self._loop, False)  # noqa: FBT003  -- gRPC's own
        task = self._loop.create_task(_core._schedule_rpc_coro(handling, call, self._loop, method))
        self._keep(task)
        place = arrived.place
        if place is not None:
            # Also of one whose client went before its message came, so that no handler ever ran.
            task.add_done_callback(lambda _: place.leave())

    async def _refuse(self, method: str, call: Any, now: int) -> None:
        self._admission.refuse(now)
        refusal = next(refusals(self._admission.level, self._admission.calls_max))
        failure = refusal.failure
        if self._observer is not None:
            with Call(method, self._observer, 0, None) as seen:
                seen.code, seen.reason = failure.code.name, failure.reason
        metadata = _core.SendInitialMetadataOperation((), 0)
        with suppress(_core.ExecuteBatchError):  # its client has gone
            await _core._send_error_status_from_server(
                call, failure.code.value[0], failure.message, refusal.trailers, metadata, self._loop
            )

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _takers(method: str) -> int:
    return _TAKERS_OF_SHEDDABLE if method in SHEDDABLE else _TAKERS
