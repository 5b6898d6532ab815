"""Workers that lock items, hold them, renew them, and give them back, or forget to."""

from typing import Any, Final

from coordd.v1 import engagement_pb2 as pb
from simulation.fleet import Worker, granted, length

_KINDS: Final = ("analysis", "reply", "like")


class Locker(Worker):
    """Locks one item after the other."""

    async def work(self) -> None:
        lock = await self._lock()
        if lock is None:
            return
        ttl_s = lock.expires_in.ToNanoseconds() / 1e9
        while self.chance(0.3):
            await self.pause(min(self.work_mix.hold_s, ttl_s))
            request = pb.RenewLockRequest(item=lock.item, worker=self.name, fencing_token=lock.fencing_token)
            if await self.ask("RenewLock", request) is None:
                break
        await self.pause(self.work_mix.hold_s)
        if not self.chance(self.work_mix.forget_rate):
            await self._release(lock)

    async def _lock(self) -> Any:
        values: dict[str, Any] = {
            "item": f"item-{self.random.randrange(self.work_mix.items)}",
            "worker": self.name,
            "kind": self.random.choice(_KINDS),
            "ttl": length(max(0.1, self.random.expovariate(1.0) * self.work_mix.ttl_s)),
            "priority": self.random.randrange(5),
            "request_id": "" if self.chance(0.1) else self.request_id(),
        }
        if self.chance(0.5):
            values["quality"] = self.random.random()
        if self.chance(0.4):
            answer = await self.ask("RequestLock", pb.RequestLockRequest(**values))
        else:
            wait_s = self.random.expovariate(1.0) * 30 + 0.01
            request = pb.AwaitLockRequest(
                **values, wait_timeout=length(wait_s), on_conflict=self.on_conflict()
            )
            answer = await self.ask("AwaitLock", request, self.patience_s(wait_s))
        return granted(answer)

    async def _release(self, lock: Any) -> None:
        request = pb.ReleaseLockRequest(
            item=lock.item,
            worker=self.name,
            fencing_token=lock.fencing_token,
            outcome=self.random.choice((1, 1, 2, 3)),
        )
        await self.ask("ReleaseLock", request)
