"""Keeps a lease alive while a block works under it, and stops the work before the lease can have ended.

Rules: a lease is renewed at a third of its length, a little earlier by chance, and never after the block has
ended. Where the worker's session keeps it there is nothing to renew; only when half of its length has passed
without a word it renews itself all the same. Whether work may go on is judged on one's own monotonic clock,
with a margin, and needs no word from the daemon. A lost lease cancels the block's task as asyncio.timeout
does, so that a cancellation from outside stays one.
"""

import asyncio
import random
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from coordd_client.caller import Caller
from coordd_client.errors import CoorddError, InvalidRequest, LeaseLost, NotFound, NotHolder
from coordd_client.holdings import Holding
from coordd_client.messages import Call, Renewal
from coordd_client.retries import Backoff

T = TypeVar("T")

_MARGIN_PART = 0.1
_RENEW_PART = 1 / 3
_RENEW_PART_IN_SESSION = 1 / 2
_RETRY_PART = 0.1
_JITTER_MIN = 0.8
# Below this, time left is rounding of float seconds, and sleeping for it might not move the clock at all.
_CLOCK_RESOLUTION_S = 1e-6


class Keeper(Generic[T]):
    """Keeps the lease of the block that the current task is in.

    Attributes:
        lost: set once the lease is lost; the block's task has been cancelled for it.
        lease_s: its length.
    """

    lost: LeaseLost | None = None

    def __init__(self, caller: Caller, holding: Holding[T], renew: Callable[[T], Call[Renewal]]) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a lease can only be held within a task")
        self._caller = caller
        self._holding = holding
        self._renew = renew
        self.lease_s = holding.left_s
        # Whether a session has kept it.
        self._was_kept = False
        self._trouble: CoorddError | None = None
        self._has_ended = False
        self._task = task
        self._cancelling = task.cancelling()
        self._keeping = asyncio.create_task(self._keep())
        self._watching = asyncio.create_task(self._watch())
        caller.keepers[self] = None
        caller.hurry()

    def end(self, error: BaseException | None) -> None:
        """Ends with the block, by `error` or cleanly. From here on nothing is renewed or cancelled.

        Raises: LeaseLost if that is why the block ended, or if it ended without noticing.
        """
        self._has_ended = True
        self._caller.keepers.pop(self, None)
        self._keeping.cancel()
        self._watching.cancel()
        if self.lost is None:
            return
        is_cancelled_outside = self._task.uncancel() > self._cancelling
        if error is None or (isinstance(error, asyncio.CancelledError) and not is_cancelled_outside):
            raise self.lost from (self._trouble or error)
        error.add_note(f"coordd_client: {self.lost}")

    async def ended(self) -> None:
        """Returns once no renewal can be under way any more."""
        await asyncio.wait([self._keeping, self._watching])

    # ---- what a session says of it

    def is_in(self, session_id: int) -> bool:
        """Whether it was taken while the session of that id was open."""
        ids = self._holding.lease_ids
        return bool(ids) and min(ids) > session_id

    def kept(self, held: Collection[int], as_of_s: float) -> None:
        """The session was kept at `as_of_s`, and with it what is in `held`: this too, or no longer."""
        if all(lease_id in held for lease_id in self._holding.lease_ids):
            self._was_kept = True
            self._holding.keep(self.lease_s, as_of_s)
        elif self._was_kept:
            self.lose("the daemon says that the lease is over")

    def revoke(self, grant_id: int, within_s: float) -> None:
        """The daemon takes the grant in so many seconds; 0: it has."""
        if grant_id not in self._holding.lease_ids:
            return
        if within_s <= 0:
            self.lose("the daemon has taken the lease away")
            return
        self._keeping.cancel()
        self._preempt(within_s)

    def _preempt(self, within_s: float) -> None:
        """It is taken in so many seconds: renewing it is no use, and the block has until then."""
        self._watching.cancel()
        self._watching = asyncio.create_task(self._watch())
        self._holding.preempt(within_s)

    def lose(self, message: str) -> None:
        """The lease is over: cancels the block's task for it, once."""
        if not self._has_ended and self.lost is None:
            details = self._trouble.metadata if self._trouble else None
            self.lost = LeaseLost(message, reason="LEASE_LOST", metadata=details)
            self._task.cancel()

    async def _watch(self) -> None:
        while (left_s := self._holding.left_s - self._margin_s()) > _CLOCK_RESOLUTION_S:
            await self._caller.clock.sleep(left_s)
        self.lose("the lease could not be renewed in time")

    async def _keep(self) -> None:
        backoff = Backoff(self._caller.config)
        pause_s = self._until_renewal_s()
        while True:
            await self._caller.clock.sleep(pause_s)
            pause_s = self._until_renewal_s()
            if pause_s > _CLOCK_RESOLUTION_S:  # a session has kept it meanwhile
                continue
            try:
                await self._renew_now()
            except (LeaseLost, NotHolder, NotFound) as error:
                self._trouble = error
                return self.lose("the daemon says that the lease is over")
            except InvalidRequest as error:  # units of a refilling pool cannot be extended, only used in time
                self._trouble = error
                return None
            except CoorddError as error:
                self._trouble = error
                # Whatever it was, there is time left to try again, and nothing to lose by it.
                pause_s = backoff.pause_s(error) or self.lease_s * _RETRY_PART
            else:
                if self._holding.is_preempted:
                    return None
                backoff.reset()
                pause_s = self._until_renewal_s()

    async def _renew_now(self) -> None:
        caller = self._caller
        sent_s = caller.clock.now()
        timeout_s = min(caller.config.call_timeout_s, self.lease_s * _RENEW_PART)
        renewal = await caller.call_once(self._renew(self._holding.grant), timeout_s)
        self.lease_s = renewal.left_s
        self._holding.extend(renewal.left_s, sent_s)
        if renewal.is_preempted:
            self._preempt(self._holding.left_s)

    def _margin_s(self) -> float:
        return min(self._caller.config.lease_margin_s, self.lease_s * _MARGIN_PART)

    def _until_renewal_s(self) -> float:
        part = _RENEW_PART_IN_SESSION if self._caller.keeps(self) else _RENEW_PART
        return self._holding.left_s - self.lease_s * (1 - part * random.uniform(_JITTER_MIN, 1.0))
