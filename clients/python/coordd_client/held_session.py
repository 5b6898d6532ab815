"""`async with client.session()`: the worker is there, and one keepalive renews all that its blocks hold.

Rules: the session is kept at a third of its length or of the shortest lease's, a little earlier by chance. A
stream that breaks, or gives no answer, is made anew under the session's id, for as long as it takes: until
then each block renews itself, as it does without a session. What the daemon has taken away cancels its block
at once. Goodbye is said when the block ends, after everything within it has been given back.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

from coordd.v1 import session_pb2 as pb
from coordd_client import sessions
from coordd_client.caller import Caller, Kept
from coordd_client.errors import CoorddError, InvalidRequest, SessionTaken, Unavailable
from coordd_client.messages import seconds
from coordd_client.permits import read_gate
from coordd_client.retries import Backoff
from coordd_client.values import Gate, GateChanged, GateState, Revoked, SessionEvent

OnRevoked = Callable[[Revoked], None]

_KEEPALIVES_PER_LEASE: Final = 3
_JITTER_MIN: Final = 0.8
_CLOCK_RESOLUTION_S: Final = 1e-6
# For whoever reads events slower than they come; the oldest are dropped.
_EVENTS_MAX: Final = 1_000


class HeldSession:
    """The worker's session, from the beginning of the block to its end."""

    def __init__(self, caller: Caller, registration: pb.Register, on_revoked: OnRevoked | None) -> None:
        self._caller = caller
        self._registration = registration
        self._on_revoked = on_revoked
        self._backoff = Backoff(caller.config)
        self._session_id = 0
        self._weight = 0.0
        self._is_connected = False
        self._is_closing = False
        self._keepalive_s = 0.0
        self._sent_s = 0.0
        # What its blocks held when the last request was sent: of others its answer says nothing.
        self._asked_of: tuple[Kept, ...] = ()
        self._answered = asyncio.Event()
        self._hurried = asyncio.Event()
        self._opened: asyncio.Future[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._error: CoorddError | None = None
        self._gates: dict[str, Gate] = {}
        self._readers: list[_Events] = []

    def __repr__(self) -> str:
        state = "connected" if self._is_connected else "over" if self._error else "not connected"
        return f"HeldSession({self._registration.worker!r}, id={self._session_id}, {state})"

    @property
    def session_id(self) -> int:
        """Names it; what the worker takes from then on has higher ids. 0: not open yet."""
        return self._session_id

    @property
    def is_connected(self) -> bool:
        """Whether the daemon is known to be there; if not, blocks renew themselves and it is looked for."""
        return self._is_connected

    @property
    def weight(self) -> float:
        """The worker's weight where shares are proportional."""
        return self._weight

    @property
    def gates(self) -> dict[str, Gate]:
        """The gates that are not open, by endpoint, as last told."""
        return dict(self._gates)

    @property
    def error(self) -> CoorddError | None:
        """Why it is over before its end, as SessionTaken; None: it is not."""
        return self._error

    def events(self) -> AsyncIterator[SessionEvent]:
        """Returns what the daemon tells from now on: revocations, warnings, gates, capacities.

        It ends with the session, and raises what ended it before its time. Who reads too slowly misses the
        oldest of more than 1,000.
        """
        reader = _Events()
        self._readers.append(reader)
        if self._error is not None:
            reader.end(self._error)
        return reader

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("a session can be entered only once; make another one")
        if self._caller.alive is not None:
            raise RuntimeError("this client has a session already")
        self._caller.alive = self
        self._opened = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run(self._opened))
        try:
            await self._opened
        except BaseException:
            await self._end()
            raise
        self._caller.open_blocks.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._caller.open_blocks.discard(self)
        # A task of its own: a second cancellation must not keep the daemon from being told.
        await asyncio.shield(self._caller.spawn(self._close()))

    def hurry(self) -> None:
        """A lease has begun, which may have to be kept more often than those before."""
        self._hurried.set()

    # ---- its life

    async def _close(self) -> None:
        self._is_closing = True
        self._hurried.set()
        if self._running is not None:
            timeout = self._caller.clock.sleep(self._caller.config.release_timeout_s)
            await _first_of(asyncio.wait([self._running]), timeout)
        await self._end()

    async def _end(self) -> None:
        """Ends all that is under way. The session, if it is open still, runs out by itself."""
        self._caller.alive = None
        self._is_connected = False
        for reader in self._readers:
            reader.end(self._error)
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    async def _run(self, opened: asyncio.Future[None]) -> None:
        end_s = self._caller.clock.now() + self._caller.config.call_timeout_s
        while True:
            try:
                return await self._talk()
            except CoorddError as error:
                self._is_connected = False
                pause_s = self._backoff.pause_s(error)
                is_late = not opened.done() and self._caller.clock.now() + (pause_s or 0.0) >= end_s
                if is_late or self._is_final(error):
                    return self._fail(error)
            except BaseException as error:
                self._is_connected = False
                if not opened.done():
                    opened.set_exception(error)
                raise
            await self._caller.clock.sleep(self._caller.config.backoff_max_s if pause_s is None else pause_s)

    def _is_final(self, error: CoorddError) -> bool:
        """Whether it is no use to try again."""
        if isinstance(error, InvalidRequest | SessionTaken):
            return True
        return not self._session_id and not isinstance(error, Unavailable)

    def _fail(self, error: CoorddError) -> None:
        self._error = error
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)
        for reader in self._readers:
            reader.end(error)

    async def _talk(self) -> None:
        """Registers, keeps the session, and says goodbye at last. Raises: CoorddError."""
        requests = _Requests()
        self._ask(requests, sessions.resuming(self._registration, self._session_id))
        async with contextlib.aclosing(self._caller.converse(sessions.CONNECT, requests)) as messages:
            await _first_of(self._listen(messages), self._pace(requests))

    async def _pace(self, requests: "_Requests") -> None:
        config = self._caller.config
        await self._answer_within(config.call_timeout_s)
        while not self._is_closing:
            await self._until_due()
            if not self._is_closing:
                self._ask(requests, sessions.KEEPALIVE)
                await self._answer_within(min(config.call_timeout_s, self._interval_s()))
        self._ask(requests, sessions.GOODBYE)
        await self._answer_within(config.release_timeout_s)
        # What is told last ends the stream.
        await asyncio.get_running_loop().create_future()

    def _ask(self, requests: "_Requests", request: pb.ConnectRequest) -> None:
        self._answered.clear()
        self._sent_s = self._caller.clock.now()
        self._asked_of = tuple(self._caller.keepers)
        requests.put(request)

    async def _answer_within(self, timeout_s: float) -> None:
        await _first_of(self._answered.wait(), self._caller.clock.sleep(timeout_s))
        if not self._answered.is_set():
            raise Unavailable("the daemon does not answer the session's stream")

    async def _until_due(self) -> None:
        jitter = random.uniform(_JITTER_MIN, 1.0)
        while not self._is_closing:
            self._hurried.clear()
            left_s = self._sent_s + self._interval_s() * jitter - self._caller.clock.now()
            if left_s <= _CLOCK_RESOLUTION_S:
                return
            await _first_of(self._hurried.wait(), self._caller.clock.sleep(left_s))

    def _interval_s(self) -> float:
        keepers = [keeper for keeper in self._caller.keepers if keeper.is_in(self._session_id)]
        of_leases = [keeper.lease_s / _KEEPALIVES_PER_LEASE for keeper in keepers]
        return min([self._keepalive_s, *of_leases])

    # ---- what the daemon says

    async def _listen(self, messages: AsyncGenerator[pb.ConnectResponse, None]) -> None:
        async for message in messages:
            self._backoff.reset()
            match message.WhichOneof("message"):
                case "registered":
                    self._registered(message.registered)
                case "kept_alive":
                    self._kept(message.kept_alive.held, seconds(message.kept_alive.keepalive_every))
                case "closed":
                    return self._closed()
                case _:
                    self._told(message)
        raise Unavailable("the session's stream ended without a goodbye")

    def _registered(self, registered: pb.Registered) -> None:
        self._session_id = registered.session_id
        self._weight = registered.weight
        self._is_connected = True
        self._gates = {change.endpoint: read_gate(change.gate) for change in registered.gates}
        self._kept(registered.held, seconds(registered.keepalive_every))
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    def _kept(self, held: Any, keepalive_s: float) -> None:
        self._keepalive_s = keepalive_s
        ids = frozenset(held)
        for keeper in self._asked_of:
            if keeper.is_in(self._session_id):
                keeper.kept(ids, self._sent_s)
        self._answered.set()

    def _closed(self) -> None:
        for keeper in tuple(self._caller.keepers):
            if keeper.is_in(self._session_id):
                keeper.lose("its session is closed")

    def _told(self, message: pb.ConnectResponse) -> None:
        event = sessions.event(message)
        if event is None:
            return
        if isinstance(event, Revoked):
            self._revoked(event)
        elif isinstance(event, GateChanged):
            self._gates.pop(event.endpoint, None)
            if event.gate.state is not GateState.OPEN:
                self._gates[event.endpoint] = event.gate
        for reader in self._readers:
            reader.put(event)

    def _revoked(self, event: Revoked) -> None:
        # First, so that a callback sees the block as it is.
        for keeper in tuple(self._caller.keepers):
            keeper.revoke(event.grant_id, event.within_s)
        if self._on_revoked is not None:
            self._on_revoked(event)


class _Requests:
    """What is still to be sent. Not a generator: its reader would have to close it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[pb.ConnectRequest] = asyncio.Queue()

    def put(self, request: pb.ConnectRequest) -> None:
        self._queue.put_nowait(request)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> pb.ConnectRequest:
        return await self._queue.get()


class _Events:
    """One reader's events."""

    def __init__(self) -> None:
        self._events: deque[SessionEvent] = deque(maxlen=_EVENTS_MAX)
        self._has_news = asyncio.Event()
        self._has_ended = False
        self._error: CoorddError | None = None

    def put(self, event: SessionEvent) -> None:
        self._events.append(event)
        self._has_news.set()

    def end(self, error: CoorddError | None) -> None:
        if not self._has_ended:
            self._has_ended, self._error = True, error
            self._has_news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionEvent:
        while not self._events:
            if self._has_ended:
                raise self._error or StopAsyncIteration
            self._has_news.clear()
            await self._has_news.wait()
        return self._events.popleft()


async def _first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Returns, or raises, as the first of them does, and stops the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
