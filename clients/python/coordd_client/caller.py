"""How a client asks: retries, waits that survive a restart of the daemon, and nothing left behind.

A grant may be made just as its asker goes away, be it cancelled or out of time. Only the daemon knows, so
it is asked again under the same request id, in the background, and what comes of it is given back: else an
item would stay locked until the lease ran out, and then count as acted upon.
"""

import asyncio
import contextlib
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from coordd_client.errors import CoorddError, DeadlineExceeded, Refused, Unavailable
from coordd_client.messages import Call, Method, Terms, Wait, stream_ended
from coordd_client.retries import Backoff, Config
from coordd_client.transport import Clock, Transport
from coordd_client.values import Queued, RefusalReason

T = TypeVar("T")
OnQueued = Callable[[Queued], None]

WAIT_S_MIN = 0.001  # the shortest that the daemon takes


@dataclass(frozen=True, slots=True)
class Stamped(Generic[T]):
    """A reply, and an instant of one's own clock from which its time left may be counted, in seconds."""

    value: T
    as_of_s: float


def is_answer(error: BaseException) -> bool:
    """Whether a request that ended so is known to hold nothing; if it is not, it must be forgone."""
    return isinstance(error, CoorddError) and not isinstance(error, DeadlineExceeded)


def still_held(open_blocks: Iterable[object]) -> list[str]:
    """Returns what is said of blocks that are open when their client is closed."""
    return sorted(f"the client is closed while it holds {block!r}" for block in open_blocks)


def warn_of(left_open: Iterable[str]) -> None:
    """Warns whoever closes the client: to call from the caller's `close`, which Client's methods call.

    Why only a warning: nobody knows whether the block has acted, and what it holds runs out by itself.
    """
    for message in left_open:
        warnings.warn(message, ResourceWarning, stacklevel=4)


class Kept(Protocol):
    """What keeps one block's lease, as the worker's session sees it."""

    lease_s: float

    def is_in(self, session_id: int) -> bool:
        """Whether it was taken while the session of that id was open."""
        ...

    def kept(self, held: Collection[int], as_of_s: float) -> None:
        """The session was kept at `as_of_s`, and with it what is in `held`."""
        ...

    def revoke(self, grant_id: int, within_s: float) -> None:
        """The daemon takes a grant in so many seconds; 0: it has."""
        ...

    def lose(self, message: str) -> None:
        """The lease is over."""
        ...


class Alive(Protocol):
    """The worker's session with the daemon, as its blocks see it."""

    @property
    def is_connected(self) -> bool:
        """Whether it is there."""
        ...

    @property
    def session_id(self) -> int:
        """Names it; what has a higher id is kept by it."""
        ...

    def hurry(self) -> None:
        """A lease has begun."""
        ...


class Caller:
    """One worker's way to the daemon; what Client and its blocks share.

    Attributes:
        open_blocks: the blocks that hold something.
        keepers: what keeps each of them that has a lease, in the order in which they began.
        alive: the worker's session with the daemon, None where it has none.
    """

    alive: "Alive | None" = None

    def __init__(self, worker: str, transport: Transport, clock: Clock, config: Config) -> None:
        self.worker = worker
        self.clock = clock
        self.config = config
        self._transport = transport
        self._background: set[asyncio.Task[Any]] = set()
        self.open_blocks: set[object] = set()
        self.keepers: dict[Kept, None] = {}

    def keeps(self, keeper: "Kept") -> bool:
        """Whether the worker's session keeps a lease, so that it need not renew itself."""
        return self.alive is not None and self.alive.is_connected and keeper.is_in(self.alive.session_id)

    def hurry(self) -> None:
        """A lease has begun that the worker's session, if there is one, may have to keep more often."""
        if self.alive is not None:
            self.alive.hurry()

    def converse(self, method: Method[Any, Any], requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """Makes one try at a stream both ways."""
        return self._transport.converse(method, requests)

    def listen(self, method: Method[Any, Any], request: Any, timeout_s: float) -> AsyncGenerator[Any, None]:
        """Makes one try at a stream of news."""
        return self._transport.stream(method, request, timeout_s)

    async def call(self, call: Call[T]) -> T:
        """Makes a call within `call_timeout_s`, retries included."""
        return (await self._send(call, self.config.call_timeout_s)).value

    async def call_once(self, call: Call[T], timeout_s: float) -> T:
        """Makes one try at a call."""
        return call.read(await self._transport.call(call.method, call.request, timeout_s))

    async def give_back(self, call: Call[T]) -> T:
        """Makes a call that gives something back, within `release_timeout_s`."""
        return (await self._send(call, self.config.release_timeout_s)).value

    async def ask(self, terms: Terms[T], wait_s: float | None, on_queued: OnQueued | None) -> Stamped[T]:
        """Asks once, or waits for `wait_s` seconds. Raises: Refused, WaitTimeout, Superseded, CoorddError."""
        try:
            if not wait_s:
                return await self._send(terms.once, self.config.call_timeout_s)
            if terms.wait is None:
                return await self._ask_when_due(terms.once, wait_s)
            return await self._wait(terms.wait, wait_s, on_queued)
        except BaseException as error:
            if not is_answer(error):
                _ = self.spawn(self._forgo(terms, is_wait=bool(wait_s)))
            raise

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts what must be finished even if its caller is cancelled."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)
        return task

    async def close(self) -> None:
        """Lets what is under way in the background end, for `release_timeout_s` at most, then closes."""
        left_open = still_held(self.open_blocks)
        try:
            if self._background:
                await asyncio.wait(self._background, timeout=self.config.release_timeout_s)
        finally:
            for task in self._background:
                task.cancel()
            await self._transport.close()
            warn_of(left_open)

    async def _send(self, call: Call[T], timeout_s: float) -> Stamped[T]:
        end_s = self.clock.now() + timeout_s
        backoff = Backoff(self.config)
        while True:
            # Time left is counted from before the daemon can have said it, which only errs towards too
            # little.
            sent_s = self.clock.now()
            try:
                return Stamped(await self.call_once(call, end_s - sent_s), sent_s)
            except Unavailable as error:
                await self._pause(backoff, error, end_s)

    async def _wait(self, wait: Wait[T], wait_s: float, on_queued: OnQueued | None) -> Stamped[T]:
        end_s = self.clock.now() + wait_s
        backoff = Backoff(self.config)
        left_s = wait_s
        while True:
            try:
                return await self._follow(wait, left_s, on_queued, backoff)
            except Unavailable as error:
                await self._pause(backoff, error, end_s)
            left_s = max(end_s - self.clock.now(), WAIT_S_MIN)

    async def _follow(
        self, wait: Wait[T], left_s: float, on_queued: OnQueued | None, backoff: Backoff
    ) -> Stamped[T]:
        deadline_s = left_s + self.config.wait_grace_s
        stream = self._transport.stream(wait.method, wait.within(left_s), deadline_s)
        async with contextlib.aclosing(stream) as messages:
            async for message in messages:
                backoff.reset()
                event = wait.event(message)
                if not isinstance(event, Queued):
                    # Sent any time after the request, so it can only be counted from now: the margin covers
                    # the way.
                    return Stamped(event, self.clock.now())
                if on_queued is not None:
                    on_queued(event)
        raise stream_ended()

    async def _ask_when_due(self, call: Call[T], wait_s: float) -> Stamped[T]:
        end_s = self.clock.now() + wait_s
        while True:
            try:
                return await self._send(call, self.config.call_timeout_s)
            except Refused as refused:
                due_in_s = refused.retry_after_s
                is_early = refused.refusal.reason is RefusalReason.BOOKING_EARLY
                if not is_early or due_in_s is None or self.clock.now() + due_in_s > end_s:
                    raise
            await self.clock.sleep(due_in_s)

    async def _pause(self, backoff: Backoff, error: CoorddError, end_s: float) -> None:
        pause_s = backoff.pause_s(error)
        if pause_s is None or self.clock.now() + pause_s >= end_s:
            raise error
        await self.clock.sleep(pause_s)

    async def _forgo(self, terms: Terms[T], *, is_wait: bool) -> None:
        if is_wait and terms.wait is not None:
            granted = await self._wait(terms.wait, WAIT_S_MIN, None)
        else:
            granted = await self._send(terms.once, self.config.release_timeout_s)
        await self.give_back(terms.forgo(granted.value))

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it sees it; nobody else has to
