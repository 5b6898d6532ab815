"""`async with` blocks: what is granted at the beginning goes back at the end, whatever happens between."""

import asyncio
import contextlib
import math
from types import TracebackType
from typing import Self, TypeVar

from coordd_client import arguments
from coordd_client.caller import Caller, OnQueued
from coordd_client.errors import CoorddError
from coordd_client.holdings import (
    BundleHolding,
    Holding,
    LockHolding,
    OnPreempted,
    PermitHolding,
    ReservationHolding,
)
from coordd_client.leases import Keeper
from coordd_client.messages import Terms
from coordd_client.values import Bundle, Lock, Permit, Reservation

T = TypeVar("T")


class _Block(Holding[T]):
    _keeper: Keeper[T] | None = None

    def __init__(
        self,
        caller: Caller,
        terms: Terms[T],
        wait_s: float | None,
        on_queued: OnQueued | None,
        on_preempted: OnPreempted | None = None,
    ) -> None:
        super().__init__(terms, caller.clock.now)
        self._caller = caller
        self._wait_s = arguments.optional_seconds("wait", wait_s)
        self._on_queued = arguments.callback("on_queued", "each Queued", on_queued)
        self._on_preempted = arguments.callback("on_preempted", "the seconds left", on_preempted)

    async def __aenter__(self) -> Self:
        self.require_unused()
        granted = await self._caller.ask(self._terms, self._wait_s, self._on_queued)
        self.hold(granted.value, granted.as_of_s)
        self._caller.open_blocks.add(self)
        if self._terms.renew is not None and self.left_s < math.inf:
            self._keeper = Keeper(self._caller, self, self._terms.renew)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self._caller.open_blocks.discard(self)
        if self._keeper is not None:
            try:
                self._keeper.end(error)
            finally:
                if self._keeper.lost is not None:
                    await self._leave(error)
            if self._keeper.lost is not None:
                return
        # A task of its own: a second cancellation must not keep the grant from going back.
        giving_back = self._caller.spawn(self._give_back(error))
        try:
            await asyncio.shield(giving_back)
        except CoorddError as failure:
            if error is None:
                raise
            error.add_note(f"coordd_client: could not give it back: {failure}")

    async def _leave(self, error: BaseException | None) -> None:
        """Leaves a lease that is lost: nothing is left to give back, the daemon itself records UNKNOWN."""

    async def _give_back(self, error: BaseException | None) -> None:
        if self._keeper is not None:
            await self._keeper.ended()
        await self._caller.give_back(self.ending(error))


class HeldLock(_Block[Lock], LockHolding):
    """`async with client.lock(...) as lock`: a lock that renews itself until the block ends."""


class HeldReservation(_Block[Reservation], ReservationHolding):
    """`async with client.reservation(...)`: a reservation that renews itself until the block ends."""


class HeldPermit(_Block[Permit], PermitHolding):
    """`async with client.permit(...) as permit`: a permit that is settled when the block ends."""


class HeldBundle(_Block[Bundle], BundleHolding):
    """`async with client.bundle(...) as bundle`: all of it, renewed until the block ends, or none of it."""

    async def _leave(self, error: BaseException | None) -> None:
        """Gives back what is left of a bundle of which something is lost."""
        with contextlib.suppress(CoorddError):
            await asyncio.shield(self._caller.spawn(self._give_back(error)))
