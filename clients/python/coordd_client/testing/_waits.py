"""Who waits for what, in which order, and what they are told meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from coordd.v1 import common_pb2
from coordd_client.caller import WAIT_S_MIN
from coordd_client.messages import duration, seconds
from coordd_client.testing._timeline import Timeline

_MEDIUM = 2
_WAIT_S_DEFAULT = 300.0

Order = tuple[float, float, int]


@dataclass(frozen=True)
class Claim:
    """What one request asks for.

    Attributes:
        lines: the queues that it may wait in, by what can be in its way.
        obstacle: returns what is in its way but for those who wait; None: nothing.
        grant: makes the grant.
    """

    lines: tuple[str, ...]
    obstacle: Callable[[], common_pb2.Refusal | None]
    grant: Callable[[], Any]


@dataclass(eq=False)
class _Waiter:
    claim: Claim
    request: Any
    reply: type[Any]
    order: Order
    times_out_s: float
    line: str = ""
    blocked_by: common_pb2.Refusal | None = None
    events: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    away_until_s: float | None = None
    told: common_pb2.Queued | None = None


class Waits:
    """A queue for each thing that blocks: by class, then quality, then first come.

    Nobody ages, so that a test knows the order. Nobody overtakes the first in a queue, even if it wants 8 and
    the next wants 1.
    """

    def __init__(self, timeline: Timeline, resume_grace_s: float) -> None:
        self._timeline = timeline
        self._resume_grace_s = resume_grace_s
        self._waiters: list[_Waiter] = []
        self._arrivals = 0

    def count(self, line: str) -> int:
        """Returns how many wait in a line; those who are away do not."""
        return len(self._line(line))

    def refusal(self, claim: Claim, request: Any) -> common_pb2.Refusal | None:
        """Returns what is in the way of a request that does not wait, those who go first included."""
        order = self._order(request)
        refusal = self._obstacle(claim, order)
        if refusal is not None and not is_hopeless(refusal):
            ahead = sum(each.order < order for each in self._line(_line_of(claim, refusal)))
            refusal.queue_position = ahead + 1
        return refusal

    async def follow(self, claim: Claim, request: Any, reply: type[Any]) -> AsyncGenerator[Any, None]:
        """Yields what happens to a wait. One that is left before its end keeps its place for the grace."""
        waiter = self._resumed(request)
        if waiter is None and (denied := self._denied(claim, request)) is not None:
            yield reply(refused=denied)
            return
        waiter = waiter or self._joined(claim, request, reply)
        events = waiter.events
        self.serve()
        try:
            is_last = False
            while not is_last:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                is_last = event.WhichOneof("event") != "queued"
        finally:
            if waiter in self._waiters and waiter.events is events:
                self._leave(waiter)

    def break_off(self, error: Exception) -> None:
        """Breaks every stream with `error`."""
        for waiter in self._waiters:
            waiter.events.put_nowait(error)

    def serve(self) -> None:
        """Grants what can be granted, in order, ends what is over, and tells the others their place."""
        for waiter in self._waiters:
            waiter.line = ""
        for waiter in list(self._waiters):
            if waiter.away_until_s is None:
                self._serve(waiter)
            elif self._timeline.now() >= waiter.away_until_s:
                self._waiters.remove(waiter)
        for waiter in self._waiters:
            if waiter.away_until_s is None:
                self._tell(waiter)

    def _serve(self, waiter: _Waiter) -> None:
        refusal = self._obstacle(waiter.claim, waiter.order)
        if refusal is None:
            self._end(waiter, waiter.reply(granted=waiter.claim.grant()))
        elif is_hopeless(refusal):
            self._end(waiter, waiter.reply(refused=refusal))
        elif self._timeline.now() >= waiter.times_out_s:
            reason = common_pb2.REFUSAL_REASON_WAIT_TIMEOUT
            over = common_pb2.Refusal(reason=reason, subject=refusal.subject)
            self._end(waiter, waiter.reply(refused=over))
        else:
            waiter.line, waiter.blocked_by = _line_of(waiter.claim, refusal), refusal

    def _obstacle(self, claim: Claim, order: Order) -> common_pb2.Refusal | None:
        if (refusal := claim.obstacle()) is not None:
            return refusal
        for line in claim.lines:
            if any(each.order < order for each in self._line(line)):
                reason = common_pb2.REFUSAL_REASON_QUEUED_AHEAD
                return common_pb2.Refusal(reason=reason, subject=subject_of(line))
        return None

    def _line(self, line: str) -> list[_Waiter]:
        return [each for each in self._waiters if each.line == line and each.away_until_s is None]

    def _order(self, request: Any) -> Order:
        return (
            -float(request.priority or _MEDIUM),
            -getattr(request, "quality", 0.0),
            self._arrivals + 1,
        )

    def _denied(self, claim: Claim, request: Any) -> common_pb2.Refusal | None:
        """Returns what is in the way of a request that would rather be refused than wait."""
        said = getattr(request, "on_conflict", common_pb2.ON_CONFLICT_UNSPECIFIED)
        return self.refusal(claim, request) if said == common_pb2.ON_CONFLICT_DENY else None

    def _joined(self, claim: Claim, request: Any, reply: type[Any]) -> _Waiter:
        order = self._order(request)
        self._arrivals += 1
        waiter = _Waiter(claim, request, reply, order, self._times_out_s(request))
        self._waiters.append(waiter)
        self._waiters.sort(key=lambda each: each.order)
        return waiter

    def _resumed(self, request: Any) -> _Waiter | None:
        for waiter in self._waiters:
            same_id = request.request_id and waiter.request.request_id == request.request_id
            if same_id and waiter.request.worker == request.worker:
                refusal = common_pb2.Refusal(reason=common_pb2.REFUSAL_REASON_SUPERSEDED)
                waiter.events.put_nowait(waiter.reply(refused=refusal))
                waiter.events = asyncio.Queue()
                waiter.away_until_s = waiter.told = None
                waiter.times_out_s = self._times_out_s(request)
                return waiter
        return None

    def _times_out_s(self, request: Any) -> float:
        wait_s = seconds(request.wait_timeout) if request.HasField("wait_timeout") else _WAIT_S_DEFAULT
        if wait_s <= WAIT_S_MIN:
            # So the client asks whether something was granted that it wants no longer, in the background,
            # where nobody would move time for it.
            return self._timeline.now()
        self._timeline.wake_at(self._timeline.now() + wait_s)
        return self._timeline.now() + wait_s

    def _leave(self, waiter: _Waiter) -> None:
        if waiter.request.request_id:
            waiter.away_until_s = self._timeline.now() + self._resume_grace_s
            self._timeline.wake_at(waiter.away_until_s)
        else:
            self._waiters.remove(waiter)

    def _end(self, waiter: _Waiter, event: Any) -> None:
        self._waiters.remove(waiter)
        waiter.events.put_nowait(event)

    def _tell(self, waiter: _Waiter) -> None:
        blocked_by = waiter.blocked_by
        position = self._line(waiter.line).index(waiter) + 1
        told = common_pb2.Queued(position=position, blocked_by=blocked_by)
        if waiter.told is None or _news(told) != _news(waiter.told):
            waiter.told = told
            event = waiter.reply(queued=told)
            event.queued.times_out_in.CopyFrom(duration(waiter.times_out_s - self._timeline.now()))
            waiter.events.put_nowait(event)


def is_hopeless(refusal: common_pb2.Refusal) -> bool:
    """Whether waiting is no use."""
    return refusal.reason == common_pb2.REFUSAL_REASON_RECENTLY_ENGAGED


def _line_of(claim: Claim, refusal: common_pb2.Refusal) -> str:
    # A bundle may want an item and an endpoint of one name; then it waits in the line of the first.
    return next(each for each in claim.lines if subject_of(each) == refusal.subject)


def subject_of(line: str) -> str:
    """Returns the name of what a line waits for."""
    return line.partition(" ")[2]


def _news(told: common_pb2.Queued) -> tuple[int, int, str, str]:
    return (told.position, told.blocked_by.reason, told.blocked_by.subject, told.blocked_by.holder)
