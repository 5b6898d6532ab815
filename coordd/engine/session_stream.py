"""One stream's end of a worker's session: answers and revocations in order, and the latest of what is news.

Owns: what its stream has still to be told. Rules: answers and revocations are told in the order in which they
happened, and none is dropped; one who does not read them is cut off, and learns what it still holds when it
registers again. Of gates and capacities only the latest matters, so each is kept once, however slow the
reader is. A client is read no faster than it reads.
Must not know: grpc, which events there are.
"""

from collections import deque
from collections.abc import Hashable
from enum import IntEnum
from types import TracebackType
from typing import Final, Protocol, cast

from msgspec import Struct

from coordd.core.commands import CloseSession, KeepSession, OpenSession
from coordd.core.errors import FailedPrecondition, ResourceExhausted
from coordd.core.machine import Command
from coordd.core.outcomes import (
    CapacityChanged,
    GateChanged,
    LeasesExpiring,
    Outcome,
    SessionClosed,
    SessionKept,
    SessionOpened,
)
from coordd.core.records import Lock, Reservation
from coordd.engine.signal import Signal

# About what a worker can hold, and 2 MiB of them.
WORDS_PER_STREAM_MAX: Final = 10_000
# Enough to keep a client busy that sends without waiting; then it is not read before it has read.
ANSWERS_PER_STREAM_MAX: Final = 16


class RevocationReason(IntEnum):
    """Why a lease is lost; numbers as in the protos."""

    PREEMPTED = 1
    FORCED = 2
    EXPIRED = 3


class Revoked(Struct, frozen=True, kw_only=True):
    """A lease is lost at `at` (ns): in a while, or now."""

    grant: Lock | Reservation
    reason: RevocationReason
    at: int


Answer = SessionOpened | SessionKept | SessionClosed
News = GateChanged | CapacityChanged
Word = Answer | Revoked | LeasesExpiring | News


class Host(Protocol):
    """What a session's stream asks of the engine."""

    async def begin_session(
        self, stream: "SessionStream", command: OpenSession, *, is_taking_over: bool
    ) -> SessionOpened:
        """Open or resume a session for `stream`. Raises: CommandError, EngineError."""
        ...

    def end_session(self, stream: "SessionStream") -> None:
        """Let a stream go; its session lives on."""
        ...

    async def submit(self, command: Command) -> Outcome:
        """Decide a command and answer once that is durable. Raises: CommandError, EngineError."""
        ...


class SessionStream:
    """A worker that is connected: `async with engine.connect(command) as stream: async for word in stream`.

    Yields: SessionOpened first, then answers, revocations, warnings and news, until `finish` or `fail`.
    Raises: CommandError, EngineError.
    """

    __slots__ = (
        "_answers",
        "_command",
        "_end",
        "_host",
        "_is_finished",
        "_is_taking_over",
        "_news",
        "_room",
        "_signal",
        "_words",
        "id",
        "worker",
    )

    def __init__(self, host: Host, command: OpenSession, *, is_taking_over: bool) -> None:
        self._host = host
        self._command = command
        self._is_taking_over = is_taking_over
        self._signal = Signal()
        self._room = Signal()
        self._words: deque[Answer | Revoked | LeasesExpiring] = deque()
        self._news: dict[Hashable, News] = {}
        # Answers among the words.
        self._answers = 0
        self._is_finished = False
        self._end: Exception | None = None
        self.worker = command.worker
        # The session's, 0 before it is open.
        self.id = 0

    async def __aenter__(self) -> "SessionStream":
        opened = await self._host.begin_session(self, self._command, is_taking_over=self._is_taking_over)
        # Before what may have been told since it was decided.
        self._words.appendleft(opened)
        self._answers += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._host.end_session(self)

    def __aiter__(self) -> "SessionStream":
        return self

    async def __anext__(self) -> Word:
        while not (self._words or self._news):
            if self._end is not None:
                raise self._end
            if self._is_finished:
                raise StopAsyncIteration
            await self._signal.wait()
        return self._next()

    # -- the client's end ------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Keep the session; the answer is told in its turn. Raises: CommandError, EngineError."""
        await self._ask(KeepSession(worker=self.worker, id=self.id))

    async def close(self) -> None:
        """Close the session; the answer is the last that is told. Raises: CommandError, EngineError."""
        await self._ask(CloseSession(worker=self.worker, id=self.id))
        self.finish()

    def finish(self) -> None:
        """End once all is told: the client says no more."""
        self._is_finished = True
        self._signal.set()

    # -- the engine's end ------------------------------------------------------------------------------------

    def put(self, word: Revoked | LeasesExpiring) -> None:
        """Tell what must not be lost."""
        if len(self._words) >= WORDS_PER_STREAM_MAX:
            self._words.clear()
            self.fail(
                ResourceExhausted("SLOW_READER", f"{WORDS_PER_STREAM_MAX} messages were not read in time.")
            )
        elif self._end is None:
            self._words.append(word)
            self._signal.set()

    def show(self, key: Hashable, news: News) -> None:
        """Tell the latest of what `key` names."""
        earlier = self._news.get(key)
        if isinstance(earlier, CapacityChanged) and isinstance(news, CapacityChanged):
            news = CapacityChanged(pool=news.pool, before=earlier.before, after=news.after)
        self._news[key] = news
        self._signal.set()

    def fail(self, error: Exception) -> None:
        """End once all is told. The first error counts."""
        self._end = self._end or error
        self._signal.set()

    def supersede(self) -> None:
        """End: a later stream of this worker goes on."""
        message = f"A later stream of {self.worker!r} goes on in this one's stead."
        self.fail(FailedPrecondition("SESSION_SUPERSEDED", message, worker=self.worker))

    # --------------------------------------------------------------------------------------------------------

    async def _ask(self, command: KeepSession | CloseSession) -> None:
        while self._answers >= ANSWERS_PER_STREAM_MAX:
            await self._room.wait()
        self._words.append(cast("SessionKept | SessionClosed", await self._host.submit(command)))
        self._answers += 1
        self._signal.set()

    def _next(self) -> Word:
        if not self._words:
            return self._news.pop(next(iter(self._news)))
        word = self._words.popleft()
        if isinstance(word, Answer):
            self._answers -= 1
            self._room.set()
        return word
