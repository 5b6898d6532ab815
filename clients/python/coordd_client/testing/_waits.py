"""Who waits for what, in which order, and what they are told meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from coordd.v1 import common_pb2
from coordd_client.messages import duration, seconds
from coordd_client.testing._timeline import Timeline

_MEDIUM = 2
_WAIT_S_DEFAULT = 300.0


@dataclass(frozen=True)
class Claim:
    """What one request asks for: what is in its way now (None: nothing), and how it is granted."""

    line: str
    obstacle: Callable[[], common_pb2.Refusal | None]
    grant: Callable[[], Any]


@dataclass(eq=False)
class _Waiter:
    claim: Claim
    request: Any
    reply: type[Any]
    order: tuple[float, float, int]
    times_out_s: float
    events: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    away_until_s: float | None = None
    told: common_pb2.Queued | None = None


class Waits:
    """The queue: by class, then quality, then first come; no aging, so that a test knows the order."""

    def __init__(self, timeline: Timeline, resume_grace_s: float) -> None:
        self._timeline = timeline
        self._resume_grace_s = resume_grace_s
        self._waiters: list[_Waiter] = []
        self._arrivals = 0

    def count(self, line: str) -> int:
        """Returns how many wait in a line."""
        return sum(waiter.claim.line == line for waiter in self._waiters)

    async def follow(self, claim: Claim, request: Any, reply: type[Any]) -> AsyncGenerator[Any, None]:
        """Yields what happens to a wait. One that is left before its end keeps its place for the grace."""
        waiter = self._resumed(request) or self._joined(claim, request, reply)
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
        now_s = self._timeline.now()
        for waiter in list(self._waiters):
            if waiter.away_until_s is not None:
                if now_s >= waiter.away_until_s:
                    self._waiters.remove(waiter)
            elif (refusal := waiter.claim.obstacle()) is None:
                self._end(waiter, waiter.reply(granted=waiter.claim.grant()))
            elif now_s >= waiter.times_out_s:
                refusal.reason = common_pb2.REFUSAL_REASON_WAIT_TIMEOUT
                self._end(waiter, waiter.reply(refused=refusal))
            else:
                self._tell(waiter, refusal)

    def _joined(self, claim: Claim, request: Any, reply: type[Any]) -> _Waiter:
        self._arrivals += 1
        quality = getattr(request, "quality", 0.0)
        order = (-float(request.priority or _MEDIUM), -quality, self._arrivals)
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

    def _tell(self, waiter: _Waiter, refusal: common_pb2.Refusal) -> None:
        line = [each for each in self._waiters if each.claim.line == waiter.claim.line]
        told = common_pb2.Queued(position=line.index(waiter) + 1, blocked_by=refusal)
        has_changed = waiter.told is None or (
            (told.position, refusal.reason) != (waiter.told.position, waiter.told.blocked_by.reason)
        )
        if has_changed:
            waiter.told = told
            event = waiter.reply(queued=told)
            event.queued.times_out_in.CopyFrom(duration(waiter.times_out_s - self._timeline.now()))
            waiter.events.put_nowait(event)
