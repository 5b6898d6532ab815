"""Workers that reserve units of pools and resources, hold them, and give them back, or forget to."""

from typing import Any, Final

from coordd.v1 import reservation_pb2 as pb
from simulation.fleet import Worker, granted, length
from simulation.loop import SECOND

# Each type with the ids that its resources may have.
_TYPES: Final = {"slot": ("",), "room": ("", "a", "b"), "desk": ("a", "b"), "burst": ("",), "spare": ("",)}
_REFILLING: Final = frozenset({"burst"})


class Reserver(Worker):
    """Reserves one thing after the other."""

    async def work(self) -> None:
        held = granted(await self._reserve())
        if held is None:
            return
        if held.type in _REFILLING:
            await self._use_units(held)
            return
        ttl_s = held.expires_in.ToNanoseconds() / SECOND
        while self.chance(0.3):
            await self.pause(min(self.work_mix.hold_s, ttl_s))
            renew = pb.RenewReservationRequest(reservation_id=held.reservation_id, worker=self.name)
            if await self.ask("RenewReservation", renew) is None:
                break
        await self.pause(self.work_mix.hold_s)
        if not self.chance(self.work_mix.forget_rate):
            await self._release(held)

    async def _reserve(self) -> Any:
        type_ = self.random.choice(tuple(_TYPES))
        resource = self.random.choice(_TYPES[type_])
        values: dict[str, Any] = {
            "type": type_,
            "resource_id": resource,
            "worker": self.name,
            "units": 0 if type_ == "desk" else self.random.choice((1, 1, 1, 2, 3)),
            "priority": self.random.randrange(5),
            "request_id": "" if self.chance(0.1) else self.request_id(),
        }
        if type_ not in _REFILLING:
            values["ttl"] = length(max(0.1, self.random.expovariate(1.0) * self.work_mix.ttl_s))
        if self.chance(0.4):
            return await self.ask("ReserveResource", pb.ReserveResourceRequest(**values))
        wait_s = self.random.expovariate(1.0) * 30 + 0.01
        request = pb.AwaitReservationRequest(
            **values, wait_timeout=length(wait_s), on_conflict=self.on_conflict()
        )
        return await self.ask("AwaitReservation", request, self.patience_s(wait_s))

    async def _use_units(self, held: Any) -> None:
        """Units that refill are used in time, or given back unused."""
        use_by_ns = self.made_ns + held.expires_in.ToNanoseconds() - SECOND // 1000
        await self.pause(self.work_mix.hold_s)
        used = 0 if self.chance(0.2) else self.random.randint(1, held.units)
        if used and self.world.loop.now_ns < use_by_ns:
            self.world.upstream.take(held.pool, held.reservation_id, used)
        elif used:
            return
        if used < held.units:
            release = pb.ReleaseResourceRequest(
                reservation_id=held.reservation_id, worker=self.name, unused_units=held.units - used
            )
            await self.ask("ReleaseResource", release)

    async def _release(self, held: Any) -> None:
        release = pb.ReleaseResourceRequest(
            reservation_id=held.reservation_id,
            worker=self.name,
            work_result=self.random.choice((0, 1, 1, 2)),
        )
        if self.chance(0.3):
            release.latency.CopyFrom(length(self.random.expovariate(1.0)))
        await self.ask("ReleaseResource", release)
