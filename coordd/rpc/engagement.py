"""EngagementService: messages to commands and back."""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from coordd.core import commands, outcomes, records
from coordd.core.errors import InvalidArgument
from coordd.core.machine import Machine
from coordd.core.views import ItemView
from coordd.rpc import fields, messages, waits
from coordd.rpc.backend import Backend, check_kinds
from coordd.v1 import engagement_pb2 as pb
from coordd.v1 import engagement_pb2_grpc

_LOCKS: Final = "locks"
_ACTED: Final = (int(records.Outcome.SUCCESS), int(records.Outcome.UNKNOWN))
_ENDED: Final = (*_ACTED, int(records.Outcome.FAILURE))
_STATES: Final = {
    int(records.Outcome.SUCCESS): pb.ITEM_STATE_DONE,
    int(records.Outcome.UNKNOWN): pb.ITEM_STATE_UNKNOWN,
}


class EngagementServicer(engagement_pb2_grpc.EngagementServiceServicer):
    """Locks on items, and the history of what was done to them."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._engine = backend.engine

    async def RequestLock(self, request: pb.RequestLockRequest, context: Any) -> pb.RequestLockResponse:
        """See the proto."""
        outcome = await self._engine.submit(_request_lock(request))
        return pb.RequestLockResponse(**messages.answer(outcome, self._engine.now()))

    def AwaitLock(
        self, request: pb.AwaitLockRequest, context: Any
    ) -> AsyncGenerator[pb.AwaitLockResponse, None]:
        """See the proto."""
        wait_ns = fields.wait_ns(request, self._backend.wait_ns_default)
        on_conflict = fields.on_conflict(request.on_conflict)
        return waits.stream(self._engine, _request_lock(request, wait_ns, on_conflict), pb.AwaitLockResponse)

    async def RenewLock(self, request: pb.RenewLockRequest, context: Any) -> pb.RenewLockResponse:
        """See the proto."""
        command = commands.RenewLock(
            item=fields.item(request.item),
            worker=fields.worker(request.worker),
            token=request.fencing_token,
            ttl_ns=fields.ttl_ns(request),
        )
        renewed = await self._backend.ask(command, outcomes.Renewed)
        return pb.RenewLockResponse(lock=messages.held(renewed.grant, self._engine.now()))

    async def GetLock(self, request: pb.GetLockRequest, context: Any) -> pb.GetLockResponse:
        """See the proto."""
        item = fields.item(request.item)
        kinds = _kinds(request.kind)
        # In this order: read the other way round, a lock taken and released in between would show as FREE.
        view = await self._engine.read(_item_view(item, kinds))
        since = self._engine.now() - self._backend.history_ns
        latest = await self._engine.store.latest_engagement(item, max(0, since), kinds, _ACTED)
        return _lock_state(view, latest, self._engine.now())

    async def ListLocks(self, request: pb.ListLocksRequest, context: Any) -> pb.ListLocksResponse:
        """See the proto."""
        size = fields.page_size(request.page_size)
        after = fields.after_id(_LOCKS, request.page_token)
        worker = fields.worker_filter(request.worker)
        # One more than asked for tells whether this page is the last.
        locks = await self._engine.store.locks_page(after, size + 1, worker)
        page = locks[:size]
        # The order is the store's; how they stand is the machine's to say: recovery extends leases in memory.
        live = await self._engine.read(lambda machine, _: machine.locks(lock.token for lock in page))
        now = self._engine.now()
        return pb.ListLocksResponse(
            locks=[messages.lock(lock, now) for lock in live],
            next_page_token=fields.page_token(_LOCKS, page[-1].token) if len(locks) > size else "",
        )

    async def ReleaseLock(self, request: pb.ReleaseLockRequest, context: Any) -> pb.ReleaseLockResponse:
        """See the proto."""
        command = commands.ReleaseLock(
            item=fields.item(request.item),
            worker=fields.worker(request.worker),
            token=request.fencing_token,
            outcome=fields.outcome(request.outcome),
        )
        released = await self._backend.ask(command, outcomes.LockReleased)
        return pb.ReleaseLockResponse(
            engagement=messages.engagement(released.engagement), already_released=released.is_repeat
        )

    async def HasRecentEngagement(
        self, request: pb.HasRecentEngagementRequest, context: Any
    ) -> pb.HasRecentEngagementResponse:
        """See the proto."""
        item = fields.item(request.item)
        kinds = fields.names("kinds", request.kinds)
        within_ns = fields.within_ns(request)
        outcomes_counted = _ENDED if request.include_failures else _ACTED
        await self._engine.read(lambda machine, _: check_kinds(machine, kinds))
        since = max(0, self._engine.now() - within_ns)
        latest = await self._engine.store.latest_engagement(item, since, kinds, outcomes_counted)
        if latest is None:
            return pb.HasRecentEngagementResponse(engaged=False)
        return pb.HasRecentEngagementResponse(engaged=True, latest=messages.engagement(latest))

    async def GetEngagementStats(
        self, request: pb.GetEngagementStatsRequest, context: Any
    ) -> pb.GetEngagementStatsResponse:
        """See the proto."""
        within_ns = fields.within_ns(request)
        worker = fields.worker_filter(request.worker)
        kinds = await self._engine.read(lambda machine, _: sorted(machine.rules.kinds))
        counts = await self._engine.store.count_engagements(max(0, self._engine.now() - within_ns), worker)
        return messages.engagement_stats(counts, kinds)


def _request_lock(
    request: pb.RequestLockRequest | pb.AwaitLockRequest, wait_ns: int = 0, on_conflict: int = 0
) -> commands.RequestLock:
    return commands.RequestLock(
        item=fields.item(request.item),
        kind=fields.name("kind", request.kind),
        worker=fields.worker(request.worker),
        ttl_ns=fields.ttl_ns(request),
        priority=fields.priority(request.priority),
        quality=fields.quality(request.quality),
        request_id=fields.request_id(request.request_id),
        wait_ns=wait_ns,
        on_conflict=on_conflict,
    )


def _kinds(kind: str) -> tuple[str, ...]:
    return fields.names("kind", [kind] if kind else [])


def _item_view(item: str, kinds: tuple[str, ...]) -> Callable[[Machine, int], ItemView]:
    def view(machine: Machine, now: int) -> ItemView:
        check_kinds(machine, kinds)
        if machine.rules.is_exclusive_by_kind and not kinds:
            message = "kind is required: locks are exclusive per item and kind"
            raise InvalidArgument("INVALID_ID", message, field="kind")
        return machine.item(item, "".join(kinds), now)

    return view


def _lock_state(view: ItemView, latest: records.Engagement | None, now: int) -> pb.GetLockResponse:
    response = pb.GetLockResponse(state=pb.ITEM_STATE_FREE, waiters=view.waiters)
    if latest is not None:
        response.state = _STATES[latest.outcome]
        response.last_engagement.CopyFrom(messages.engagement(latest))
    if view.lock is not None:
        response.state = pb.ITEM_STATE_IN_PROGRESS
        response.lock.CopyFrom(messages.lock(view.lock, now))
    if view.delayed_until > now:
        response.delayed_until.CopyFrom(messages.timestamp(view.delayed_until))
    return response
