"""How many calls a namespace may have under way, and how many it may make a second.

Owns: the count, the rate, and the error. Rules: what gives back or keeps something is never refused, for
that would only make more to do; it counts towards neither. A rate is even, with a second's worth at once. A
refusal costs what an answer does, so it is held back for as long as its caller is to stay away: who asks
again at once and heeds nothing has then as many calls a second as it has at a time, and no more.
Must not know: any service.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from inspect import iscoroutinefunction
from typing import Any, Final

from coordd.core.errors import ResourceExhausted
from coordd.core.limits import REFUSALS_HELD_BACK_MAX, SECOND
from coordd.rpc.admission_door import step_aside

# Below what a call may take before it is logged as slow.
_HOLD_S: Final = 0.5
_SPREAD: Final = 16


class CallQuota:
    """The calls of one namespace. `calls`: at once; `per_second`: begun; 0: any number."""

    __slots__ = ("_calls", "_due_at", "_held_back", "_pause_ns", "_per_second", "_under_way")

    def __init__(self, calls: int, per_second: int) -> None:
        self._under_way = self._held_back = 0
        # When all that was begun would have been begun, had it come evenly.
        self._due_at = 0
        self.change(calls, per_second)

    def change(self, calls: int, per_second: int) -> None:
        """Let other numbers hold from now on; what is under way goes on."""
        self._calls = calls
        self._per_second = per_second
        self._pause_ns = SECOND // per_second if per_second else 0

    @property
    def is_set(self) -> bool:
        """Whether there is anything to keep to."""
        return bool(self._calls or self._pause_ns)

    def enter(self, now: int) -> None:
        """Count a call that begins at `now`, in ns of a monotonic clock. Raises: ResourceExhausted."""
        if self._calls and self._under_way >= self._calls:
            raise _exceeded("calls", self._calls, "calls under way at once")
        if self._pause_ns:
            due_at = max(self._due_at, now) + self._pause_ns
            if due_at - now > SECOND:
                raise _exceeded("calls_per_second", self._per_second, "calls a second")
            self._due_at = due_at
        self._under_way += 1

    def leave(self) -> None:
        """Count a call that has ended."""
        self._under_way -= 1

    async def admit(self, context: Any) -> None:
        """Count a call that begins now. Raises: ResourceExhausted, after a while."""
        try:
            self.enter(time.monotonic_ns())
        except ResourceExhausted:
            await self._hold_back(context)
            raise

    async def _hold_back(self, context: Any) -> None:
        if self._held_back >= REFUSALS_HELD_BACK_MAX:
            return
        left_s = context.time_remaining()
        # Not all for as long: those refused together would come back together.
        hold_s = _HOLD_S * (1 - self._held_back % _SPREAD / _SPREAD / 2)
        self._held_back += 1
        # Or those held back would fill the daemon, and the rest be refused at once, and ask again at once.
        step_aside()
        try:
            # Before its deadline, or its caller would not learn why.
            await asyncio.sleep(hold_s if left_s is None else min(hold_s, left_s / 2))
        finally:
            self._held_back -= 1


def limited(behaviour: Any, quota: CallQuota) -> Any:
    """Return `behaviour`, of a unary call or a generator of messages, within the quota while one is set."""
    within = _within(behaviour, quota)

    def chosen(request: Any, context: Any) -> Any:
        return (within if quota.is_set else behaviour)(request, context)

    return chosen


def _within(behaviour: Any, quota: CallQuota) -> Any:
    if iscoroutinefunction(behaviour):

        async def unary(request: Any, context: Any) -> Any:
            await quota.admit(context)
            try:
                return await behaviour(request, context)
            finally:
                quota.leave()

        return unary

    async def stream(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        await quota.admit(context)
        try:
            async with aclosing(behaviour(request, context)) as messages:
                async for message in messages:
                    yield message
        finally:
            quota.leave()

    return stream


def _exceeded(quota: str, most: int, what: str) -> ResourceExhausted:
    return ResourceExhausted(
        "QUOTA_EXCEEDED", f"There may be {most} {what}, by the quota.", quota=quota, limit=most
    )
