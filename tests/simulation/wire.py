"""The network: calls as bytes over connections that may be slow, break, or be gone without a word.

Owns: which message arrives, when, and who learns what of a connection's end. The level is that of calls, as
gRPC gives it to a servicer: what a stream says arrives in order, two streams know no order; a call whose
client is gone is cancelled, at once or, if nobody said so, when keepalives have found out.
Must not know: what the messages say.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from random import Random
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from simulation.loop import SECOND, Loop, Process
from simulation.methods import METHODS
from simulation.mix import WireMix

# By when the ends of a connection that has gone without a word have found out: 15 + 5 s, 10 + 10 s.
_CLIENT_FINDS_S: Final = (15, 20)
_SERVER_FINDS_S: Final = (10, 20)
_DETAILS: Final = "grpc-status-details-bin"

Note = Callable[[str], None]


class CallFailed(Exception):
    """A call ended with another status than OK. `reason`: of its ErrorInfo; empty: there was none."""

    def __init__(self, code: str, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason
        self.metadata = metadata or {}

    @property
    def is_unanswered(self) -> bool:
        """Whether nobody knows what became of the call."""
        return self.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"} and not self.reason


class Wire:
    """The network between all clients and the daemon that serves now, if one does."""

    def __init__(self, loop: Loop, mix: WireMix, random: Random, note: Note) -> None:
        self.loop = loop
        self.mix = mix
        self.random = random
        self.note = note
        self.server: Server | None = None
        self.is_faulty = True

    def delay_ns(self) -> int:
        """Return how long a message takes."""
        mean_ns = self.mix.latency_ns
        if self.is_faulty and self.random.random() < self.mix.slow_rate:
            self.note("slow message")
            mean_ns = self.mix.slow_ns_max
        return mean_ns // 4 + round(self.random.expovariate(1.0) * mean_ns)

    def between_ns(self, low_s: float, high_s: float) -> int:
        """Return any length of time between two."""
        return round(self.random.uniform(low_s, high_s) * SECOND)


class Link:
    """One connection between a client's channel and a server."""

    def __init__(self, wire: Wire, channel: "Channel", server: "Server") -> None:
        self.wire = wire
        self.channel = channel
        self.server = server
        self.calls: dict[Call, None] = {}
        self.served: dict[Served, None] = {}
        self.is_usable = True
        self._is_severed = self._loses_all = False
        self._last_ns = 0
        server.links[self] = None

    def to_server(self, call: "Call", function: Callable[..., None], *args: Any) -> None:
        """Let `function` be called at the server."""
        call.sent_ns = self._send(self.server.process, call.sent_ns, function, args)

    def to_client(self, call: "Call", function: Callable[..., None], *args: Any) -> None:
        """Let `function` be called at the client."""
        call.received_ns = self._send(self.channel.process, call.received_ns, function, args)

    def _send(self, to: Process, after_ns: int, function: Callable[..., None], args: tuple[Any, ...]) -> int:
        wire = self.wire
        self._maybe_break()
        if self._is_severed:
            return after_ns
        at_ns = max(wire.loop.now_ns + wire.delay_ns(), after_ns + 1)
        self._last_ns = max(self._last_ns, at_ns)
        wire.loop.call_at_ns(at_ns, self._arrive, function, args, context=to.context())
        self._maybe_break()
        return at_ns

    def _arrive(self, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self._loses_all:
            function(*args)

    def _maybe_break(self) -> None:
        wire, mix = self.wire, self.wire.mix
        if not wire.is_faulty or self._is_severed:
            return
        # Twice for each message, before and after it.
        if wire.random.random() < mix.reset_rate / 2:
            wire.note("connection reset")
            self.reset()
        elif wire.random.random() < mix.vanish_rate / 2:
            wire.note("connection half-open")
            self.vanish()

    # -- its end ---------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Both ends learn of it soon; what is under way may arrive before, or not."""
        delay_ns = self.wire.delay_ns
        self._sever(delay_ns(), delay_ns(), loses_all=self.wire.random.random() < 0.5)

    def vanish(self) -> None:
        """Nothing arrives any more, and nobody is told."""
        between_ns = self.wire.between_ns
        self._sever(between_ns(*_CLIENT_FINDS_S), between_ns(*_SERVER_FINDS_S), loses_all=True)

    def close(self) -> None:
        """The server's process has ended, or stops listening: what it has sent arrives, and then the end."""
        after_ns = max(0, self._last_ns - self.wire.loop.now_ns) + self.wire.delay_ns()
        self._sever(after_ns, after_ns, loses_all=False)

    def leave(self) -> None:
        """The client's process has ended: what it has sent arrives, and then the end."""
        after_ns = max(0, self._last_ns - self.wire.loop.now_ns) + self.wire.delay_ns()
        self._sever(0, after_ns, loses_all=False)

    def give_up(self, is_still: Callable[[], bool]) -> None:
        """The client ends it once its keepalives were not answered for long, if it `is_still` so then."""
        after_ns = self.wire.between_ns(*_CLIENT_FINDS_S)
        self.wire.loop.call_at_ns(
            self.wire.loop.now_ns + after_ns,
            lambda: is_still() and not self._is_severed and self._sever(0, 0, loses_all=False),
            context=self.channel.process.context(),
        )

    def _sever(self, client_after_ns: int, server_after_ns: int, *, loses_all: bool) -> None:
        if self._is_severed:
            return
        self._is_severed, self._loses_all = True, loses_all
        now_ns, call_at_ns = self.wire.loop.now_ns, self.wire.loop.call_at_ns
        call_at_ns(now_ns + client_after_ns, self._client_learns, context=self.channel.process.context())
        call_at_ns(now_ns + server_after_ns, self._server_learns, context=self.server.process.context())

    def _client_learns(self) -> None:
        self.is_usable = False
        for call in list(self.calls):
            call.end("UNAVAILABLE")

    def _server_learns(self) -> None:
        self.server.links.pop(self, None)
        for served in list(self.served):
            served.cancel()


class Channel:
    """A client's way to the daemon: one connection at a time, made anew when it is needed."""

    def __init__(self, wire: Wire, process: Process) -> None:
        self.process = process
        self._wire = wire
        self._link: Link | None = None

    async def ask(self, name: str, request: Message, timeout_s: float) -> tuple[Any, int]:
        """Make a call with one answer; return it, and when the server made it. Raises: CallFailed."""
        call = await self.open(name, timeout_s)
        call.say(request)
        try:
            reply = await call.read()
            if reply is None:
                raise CallFailed("INTERNAL", "ENDED_WITHOUT_ANSWER")
            return reply, call.made_ns
        finally:
            call.cancel()

    async def open(self, name: str, timeout_s: float | None = None) -> "Call":
        """Begin a call. Raises: CallFailed."""
        link = await self._connected()
        return Call(link, name, timeout_s)

    def close(self) -> None:
        """Close the connection, as the kernel does for a process that has ended."""
        if self._link is not None and self._link.is_usable:
            self._link.leave()

    async def _connected(self) -> Link:
        if self._link is None or not self._link.is_usable:
            await asyncio.sleep((self._wire.delay_ns() + self._wire.delay_ns()) / SECOND)
            server = self._wire.server
            if server is None:
                raise CallFailed("UNAVAILABLE")
            if self._link is None or not self._link.is_usable:
                self._link = Link(self._wire, self, server)
        return self._link


class Call:
    """The client's end of a call."""

    def __init__(self, link: Link, name: str, timeout_s: float | None) -> None:
        self.sent_ns = self.received_ns = 0
        # When the server made the message that was read last.
        self.made_ns = 0
        self._link = link
        self._method = METHODS[name]
        self._messages: deque[tuple[bytes, int]] = deque()
        self._end: CallFailed | None = None
        self._is_over = False
        self._wake = asyncio.Event()
        self._timer = None
        loop = link.wire.loop
        if timeout_s is not None:
            self._timer = loop.call_later(timeout_s, self._expire)
        link.calls[self] = None
        self._served = Served(link, self, self._method.path)
        link.to_server(self, self._served.begin, timeout_s)

    def say(self, message: Message) -> None:
        """Send a message."""
        if not self._is_over:
            self._link.to_server(self, self._served.receive, message.SerializeToString())

    def half_close(self) -> None:
        """Send no more."""
        if not self._is_over:
            self._link.to_server(self, self._served.receive, None)

    async def read(self) -> Any:
        """Return the next message; None: it has ended, and all is well. Raises: CallFailed."""
        while not self._messages:
            if self._is_over:
                if self._end is not None:
                    raise self._end
                return None
            self._wake.clear()
            await self._wake.wait()
        self._link.to_server(self, self._served.acknowledge)
        data, self.made_ns = self._messages.popleft()
        return self._method.reply.FromString(data)

    def cancel(self) -> None:
        """End it from this side, if it has not ended."""
        if not self._is_over:
            self._link.to_server(self, self._served.cancel)
            self.end("CANCELLED")

    # -- the other side's doing ------------------------------------------------------------------------------

    def receive(self, data: bytes, made_ns: int) -> None:
        """Take a message."""
        if not self._is_over:
            self._messages.append((data, made_ns))
            self._wake.set()

    def end(self, code: str, trailers: Iterable[tuple[str, str | bytes]] = ()) -> None:
        """End it with a status; what has arrived may still be read."""
        if self._is_over:
            return
        self._is_over = True
        self._link.calls.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        if code != "OK":
            self._end = _failure(code, trailers)
        self._wake.set()

    def _expire(self) -> None:
        if not self._is_over:
            self._link.to_server(self, self._served.cancel)
            self.end("DEADLINE_EXCEEDED")


class Server:
    """One daemon's end of the network: its handlers, and the calls they serve."""

    def __init__(self, wire: Wire, process: Process) -> None:
        self.wire = wire
        self.process = process
        self.handlers: dict[str, Any] = {}
        self.links: dict[Link, None] = {}
        self.served: dict[Served, None] = {}
        # What no servicer may raise.
        self.defects: list[str] = []
        self._is_idle = asyncio.Event()

    def add(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Serve a service's methods."""
        self.handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def listen(self) -> None:
        """Take calls."""
        self.wire.server = self

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, let those under way end for so long, and cancel the rest."""
        self.gone()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._idle()
        for served in list(self.served):
            served.cancel()
        await self._idle()

    async def _idle(self) -> None:
        while self.served:
            self._is_idle.clear()
            await self._is_idle.wait()

    def gone(self) -> None:
        """Be no longer reachable."""
        if self.wire.server is self:
            self.wire.server = None

    def leave(self, served: "Served") -> None:
        """A call has ended."""
        self.served.pop(served, None)
        served.link.served.pop(served, None)
        if not self.served:
            self._is_idle.set()


class Served:
    """The server's end of a call, and the context that a servicer is given."""

    def __init__(self, link: Link, call: Call, path: str) -> None:
        self.link = link
        self._call = call
        self._path = path
        self._server = link.server
        self._requests: deque[bytes | None] = deque()
        self._unread = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    # -- the client's doing ----------------------------------------------------------------------------------

    def begin(self, timeout_s: float | None) -> None:
        """Run the handler."""
        if self._server.wire.server is not self._server:
            return self._finish("UNAVAILABLE")
        self._server.served[self] = None
        self.link.served[self] = None
        loop = self.link.wire.loop
        self._task = loop.create_task(self._run())
        # Not in `_run`: a task that is cancelled before its first step never begins.
        self._task.add_done_callback(lambda _: self._server.leave(self))
        if timeout_s is not None:
            loop.call_later(timeout_s, self.cancel)
        return None

    def receive(self, data: bytes | None) -> None:
        """Take a message; None: no more follow."""
        self._requests.append(data)
        self._wake.set()

    def acknowledge(self) -> None:
        """The client has read one."""
        self._unread -= 1
        self._room.set()

    def cancel(self) -> None:
        """Cancel the handler."""
        if self._task is not None:
            self._task.cancel()

    # -- what a servicer asks of its context -----------------------------------------------------------------

    async def write(self, message: Message) -> None:
        """Send a message, once the client has read enough of what was sent before."""
        self._tell(message)
        self._unread += 1
        # Also where there is room: the transport tells on the loop's next round.
        await asyncio.sleep(0)
        while self._unread >= self.link.wire.mix.window:
            self._room.clear()
            await self._room.wait()

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        """End the call with a status."""
        self._finish(code.name, trailing_metadata)
        raise grpc.aio.AbortError

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Say that the call has begun."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what the client has said beside its message."""
        return ()

    def peer(self) -> str:
        """Return who calls."""
        return f"ipv4:127.0.0.1:{self.link.channel.process.name}"

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return what is known of who calls."""
        return {}

    # --------------------------------------------------------------------------------------------------------

    @property
    def _handler(self) -> Any:
        return self._server.handlers[self._path]

    async def _run(self) -> None:
        try:
            await self._handle()
            self._finish("OK")
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:
            self._finish("CANCELLED")
        except Exception as error:  # noqa: BLE001  -- gRPC makes UNKNOWN of it, and nothing may be
            self._server.defects.append(f"{self._path}: {error!r}")
            self._finish("UNKNOWN")

    async def _handle(self) -> None:
        handler = self._handler
        if handler.request_streaming:
            await handler.stream_stream(self._messages(), self)
            return
        data = await self._next()
        assert data is not None
        request = handler.request_deserializer(data)
        if handler.response_streaming:
            await handler.unary_stream(request, self)
        else:
            self._tell(await handler.unary_unary(request, self))

    def _tell(self, message: Message) -> None:
        data = self._handler.response_serializer(message)
        self.link.to_client(self._call, self._call.receive, data, self.link.wire.loop.now_ns)

    async def _messages(self) -> AsyncIterator[Any]:
        while (data := await self._next()) is not None:
            yield self._handler.request_deserializer(data)

    async def _next(self) -> bytes | None:
        while not self._requests:
            self._wake.clear()
            await self._wake.wait()
        return self._requests.popleft()

    def _finish(self, code: str, trailers: Iterable[tuple[str, str | bytes]] = ()) -> None:
        if not self._is_over:
            self._is_over = True
            self.link.to_client(self._call, self._call.end, code, trailers)


def _failure(code: str, trailers: Iterable[tuple[str, str | bytes]]) -> CallFailed:
    for name, value in trailers:
        if name == _DETAILS:
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return CallFailed(code, info.reason, dict(info.metadata))
    return CallFailed(code)
