"""Workers that take several things at once: a lock, units, and permits, under conditions."""

from typing import Any

from coordd.v1 import bundle_pb2 as pb
from simulation.callers import Caller
from simulation.fleet import granted, length


class Bundler(Caller):
    """Takes one bundle after the other."""

    async def work(self) -> None:
        bundle = granted(await self._acquire())
        if bundle is None:
            return
        made_ns = self.made_ns
        for permit in bundle.permits:
            if self.chance(0.8):
                await self.use(permit, made_ns)
        while self.chance(0.3):
            await self.pause(self.work_mix.hold_s)
            renew = pb.RenewBundleRequest(bundle_id=bundle.bundle_id, worker=self.name)
            if await self.ask("RenewBundle", renew) is None:
                break
        await self.pause(self.work_mix.hold_s)
        if not self.chance(self.work_mix.forget_rate):
            await self._release(bundle)

    async def _acquire(self) -> Any:
        values: dict[str, Any] = {
            "worker": self.name,
            "claims": self._claims(),
            "not_engaged": self._conditions(),
            "priority": self.random.randrange(5),
            "request_id": "" if self.chance(0.1) else self.request_id(),
        }
        if self.chance(0.4):
            return await self.ask("AcquireBundle", pb.AcquireBundleRequest(**values))
        wait_s = self.random.expovariate(1.0) * 30 + 0.01
        request = pb.AwaitBundleRequest(**values, wait_timeout=length(wait_s), on_conflict=self.on_conflict())
        return await self.ask("AwaitBundle", request, self.patience_s(wait_s))

    def _claims(self) -> list[pb.Claim]:
        ttl = length(max(0.1, self.random.expovariate(1.0) * self.work_mix.ttl_s))
        item = f"item-{self.random.randrange(self.work_mix.items)}"
        every = [
            pb.Claim(lock=pb.LockClaim(item=item, kind="analysis", ttl=ttl)),
            pb.Claim(reservation=pb.ReservationClaim(type="slot", units=1, ttl=ttl)),
            pb.Claim(reservation=pb.ReservationClaim(type="desk", resource_id="a", ttl=ttl)),
            pb.Claim(permit=pb.PermitClaim(endpoint="post", permits=1)),
            pb.Claim(permit=pb.PermitClaim(endpoint="search", permits=2)),
        ]
        return self.random.sample(every, self.random.randint(1, len(every)))

    def _conditions(self) -> list[pb.NotEngaged]:
        if self.chance(0.8):
            return []
        item = f"item-{self.random.randrange(self.work_mix.items)}"
        return [pb.NotEngaged(item=item, within=length(self.random.expovariate(1.0) * 20 + 0.1))]

    async def _release(self, bundle: Any) -> None:
        release = pb.ReleaseBundleRequest(
            bundle_id=bundle.bundle_id, worker=self.name, outcome=self.random.choice((1, 2, 3))
        )
        await self.ask("ReleaseBundle", release)
