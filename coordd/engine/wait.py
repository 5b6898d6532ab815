"""One wait stream's end of a wait: places while it waits, then a grant or a refusal.

Owns: what its stream has been told. Rules: places are coalesced, the last word is not. A stream that ends
without its grant leaves its waiter away (or out, without a request id). A grant whose stream is gone before
it is handed over goes back at once; once handed over it stays, since nobody can know whether it arrived: its
holder may be at work.
"""

from types import TracebackType
from typing import Protocol

from coordd.core.commands import WaitableCommand
from coordd.core.limits import SECOND
from coordd.core.outcomes import Grant, Granted, Place, Reason, Refused
from coordd.core.waiters import Waiter
from coordd.engine.signal import Signal


class Host(Protocol):
    """What a wait asks of the engine."""

    async def begin_wait(self, wait: "Wait", command: WaitableCommand) -> None:
        """Decide a wait's command, and tell `wait` what comes of it.

        Raises: CommandError, EngineError.
        """
        ...

    def end_wait(self, wait: "Wait") -> None:
        """Let a wait's waiter go: its stream has ended."""
        ...

    def return_grant(self, grant: Grant, waiter: Waiter | None) -> None:
        """Take back a grant that its stream could not be told, unless somebody else was told."""
        ...

    def keep_grant(self, grant: Grant) -> None:
        """Let a grant stay: it was told."""
        ...


class Wait:
    """A command that may wait: `async with engine.wait(command) as wait: async for event in wait`.

    Yields: Place, any number of times, the first at once; then exactly one Granted or Refused.
    Raises: CommandError, EngineError.
    """

    __slots__ = (
        "_final",
        "_host",
        "_is_told",
        "_place",
        "_shown_at",
        "_signal",
        "_told",
        "_waiter",
        "command",
        "first",
        "id",
    )

    def __init__(self, host: Host, command: WaitableCommand) -> None:
        self._host = host
        self.command = command
        # The place that it was shown first.
        self.first: Place | None = None
        self._signal = Signal()
        # Where it stands, as of when (ns).
        self._place: Place | None = None
        self._shown_at = 0
        self._told: Place | None = None
        self._final: Granted | Refused | Exception | None = None
        # Whether the last word was handed over.
        self._is_told = False
        self._waiter: Waiter | None = None
        # The waiter's id, 0 before it waits.
        self.id = 0

    async def __aenter__(self) -> "Wait":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._host.end_wait(self)
        if isinstance(self._final, Granted) and not self._is_told:
            self._host.return_grant(self._final.grant, self._waiter)

    def __aiter__(self) -> "Wait":
        return self

    async def __anext__(self) -> Place | Granted | Refused:
        if self._is_told:
            raise StopAsyncIteration
        if not self.id and self._final is None:
            await self._host.begin_wait(self, self.command)
        while self._final is None and self._place is self._told:
            await self._signal.wait()
        return self._next()

    # -- the engine's end ------------------------------------------------------------------------------------

    def show(self, place: Place, now: int) -> None:
        """Show where the waiter stands at `now` (ns), if that is news."""
        if self._place is None or is_news_of(self._place, place, now - self._shown_at):
            self.first = self.first or place
            self._place = place
            self._shown_at = now
            self._signal.set()

    def finish(self, final: Granted | Refused | Exception, waiter: Waiter | None = None) -> None:
        """End the wait."""
        self._final = final
        self._waiter = waiter
        self._signal.set()

    # --------------------------------------------------------------------------------------------------------

    def _next(self) -> Place | Granted | Refused:
        if self._final is None and self._place is not None:
            self._told = self._place
            return self._place
        self._is_told = True
        if isinstance(self._final, Granted):
            self._host.keep_grant(self._final.grant)
            return self._final
        if isinstance(self._final, Refused):
            return self._final
        raise self._final or StopAsyncIteration


def is_news_of(before: Place, after: Place, passed_ns: int) -> bool:
    """Return whether a place is worth a message, `passed_ns` after the one that was told."""
    return _stands(before) != _stands(after) or _has_moved(before.wait_ns, after.wait_ns, passed_ns)


def _stands(place: Place) -> tuple[int, Reason, str, str]:
    blocked_by = place.blocked_by
    return (place.position, blocked_by.reason, blocked_by.subject, blocked_by.holder)


def _has_moved(before_ns: int | None, after_ns: int | None, passed_ns: int) -> bool:
    """Return whether an estimate differs by more than 1 s and a fifth from what time alone made of it.

    Why so much: estimates shift with every breath, and each would be a message to every waiter.
    """
    if before_ns is None or after_ns is None:
        return before_ns is not after_ns
    expected_ns = max(0, before_ns - passed_ns)
    return abs(after_ns - expected_ns) > max(SECOND, expected_ns // 5)
