"""AdminService: messages to commands and back."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol, TypeVar

import structlog

from coordd.core import commands, limits, outcomes
from coordd.core.errors import FailedPrecondition
from coordd.core.records import Decision
from coordd.rpc import events, fields, messages
from coordd.rpc.backend import Backend
from coordd.rpc.escalations import Board, open_escalations
from coordd.store.protocol import Copy, CopyRefused
from coordd.v1 import admin_pb2 as pb
from coordd.v1 import admin_pb2_grpc

_POOLS: Final = "pools"
_LIMITS: Final = "limits"
_SESSIONS: Final = "sessions"
_ESCALATIONS: Final = "escalations"

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class _Named(Protocol):
    @property
    def name(self) -> str: ...


View = TypeVar("View", bound=_Named)


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Inspection and intervention."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._engine = backend.engine

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        """See the proto."""
        counts, quotas = await self._engine.read(lambda machine, _: (machine.counts(), machine.quotas()))
        status = self._engine.status()
        mean_ns = status.commit_ns_mean
        return pb.GetStatusResponse(
            version=self._backend.version,
            now=messages.timestamp(self._engine.now()),
            uptime=messages.duration(status.uptime_ns),
            draining=self._engine.is_draining,
            locks=counts.locks,
            reservations=counts.reservations,
            permits=counts.permits,
            bookings=counts.bookings,
            bundles=counts.bundles,
            waiters=counts.waiters,
            waiters_away=counts.waiters_away,
            sessions=counts.sessions,
            quotas=[pb.QuotaUse(quota=each.name, used=each.used, limit=each.limit) for each in quotas],
            escalations=counts.escalations,
            last_id=counts.last_id,
            commits=status.commits,
            commands=status.commands,
            commit_time_mean=None if mean_ns is None else messages.duration(mean_ns),
        )

    async def ListPools(self, request: pb.ListPoolsRequest, context: Any) -> pb.ListPoolsResponse:
        """See the proto."""
        size = fields.page_size(request.page_size)
        after = fields.after_name(_POOLS, request.page_token)
        pools = await self._engine.read(lambda machine, now: machine.pools(now))
        page, token = _page(_POOLS, pools, after, size)
        now = self._engine.now()
        return pb.ListPoolsResponse(pools=[messages.pool(pool, now) for pool in page], next_page_token=token)

    async def UpdatePool(self, request: pb.UpdatePoolRequest, context: Any) -> pb.UpdatePoolResponse:
        """See the proto."""
        command = commands.UpdatePool(
            name=fields.name("name", request.name),
            capacity=fields.count("capacity", request.capacity, 0, limits.UNITS_MAX),
            windows=fields.windows(request.windows),
            is_unpinned=request.unpin,
        )
        await self._backend.ask(command, outcomes.Updated)
        _logger.info(
            "pool updated",
            pool=command.name,
            capacity=command.capacity,
            windows=command.windows,
            unpin=command.is_unpinned,
        )
        pool = await self._engine.read(lambda machine, now: machine.pool(command.name, now))
        return pb.UpdatePoolResponse(pool=messages.pool(pool, self._engine.now()))

    async def ListLimits(self, request: pb.ListLimitsRequest, context: Any) -> pb.ListLimitsResponse:
        """See the proto."""
        size = fields.page_size(request.page_size)
        after = fields.after_name(_LIMITS, request.page_token)
        found = await self._engine.read(lambda machine, now: machine.limits(now))
        page, token = _page(_LIMITS, found, after, size)
        now = self._engine.now()
        return pb.ListLimitsResponse(
            limits=[messages.limit(limit, now) for limit in page], next_page_token=token
        )

    async def UpdateLimit(self, request: pb.UpdateLimitRequest, context: Any) -> pb.UpdateLimitResponse:
        """See the proto."""
        fields.count("windows", len(request.windows), 1, limits.WINDOWS_PER_LIMIT_MAX)
        command = commands.UpdateLimit(
            endpoint=fields.name("endpoint", request.endpoint), windows=fields.windows(request.windows)
        )
        await self._backend.ask(command, outcomes.Updated)
        _logger.info("limit updated", endpoint=command.endpoint, windows=command.windows)
        limit = await self._engine.read(lambda machine, now: machine.limit(command.endpoint, now))
        return pb.UpdateLimitResponse(limit=messages.limit(limit, self._engine.now()))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Any) -> pb.ListSessionsResponse:
        """See the proto."""
        size = fields.page_size(request.page_size)
        after = fields.after_name(_SESSIONS, request.page_token)
        found = await self._engine.read(lambda machine, _: machine.sessions())
        page, token = _page(_SESSIONS, found, after, size)
        now, connected = self._engine.now(), self._engine.sessions.is_connected
        return pb.ListSessionsResponse(
            sessions=[
                messages.session(view, now, is_connected=connected(view.name, view.session.id))
                for view in page
            ],
            next_page_token=token,
        )

    async def ForceRelease(self, request: pb.ForceReleaseRequest, context: Any) -> pb.ForceReleaseResponse:
        """See the proto."""
        reason = fields.text("reason", request.reason, limits.REASON_BYTES_MAX)
        command = commands.ForceRelease(id=request.id, reason=reason)
        forced = await self._backend.ask(command, outcomes.Forced)
        subject, name, worker = events.subject_of(forced.grant)
        _logger.warning("released by force", id=request.id, name=name, worker=worker, reason=reason)
        return pb.ForceReleaseResponse(subject=subject, name=name, worker=worker)

    async def Drain(self, request: pb.DrainRequest, context: Any) -> pb.DrainResponse:
        """See the proto."""
        reason = fields.text("reason", request.reason, limits.REASON_BYTES_MAX, is_required=False)
        if request.undo:
            self._engine.undrain()
        else:
            self._engine.drain(reason)
        _logger.warning("draining" if self._engine.is_draining else "granting again", reason=reason)
        return pb.DrainResponse(draining=self._engine.is_draining)

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Any
    ) -> AsyncGenerator[pb.WatchEventsResponse, None]:
        """See the proto."""
        wanted = _filter(request)
        async with self._engine.watch() as watch:
            # So that a client knows from when on it sees everything.
            await context.send_initial_metadata(())
            missed = 0
            async for event in watch:
                missed += event.missed
                told = events.told(event)
                if told is not None and wanted.passes(told):
                    told.missed, missed = missed, 0
                    yield told

    async def ListEscalations(
        self, request: pb.ListEscalationsRequest, context: Any
    ) -> pb.ListEscalationsResponse:
        """See the proto."""
        size = fields.page_size(request.page_size)
        after = fields.after_id(_ESCALATIONS, request.page_token)
        default, found = await self._engine.read(open_escalations)
        left = [escalation for escalation in found if escalation.id > after]
        page, now = left[:size], self._engine.now()
        return pb.ListEscalationsResponse(
            escalations=[messages.escalation(each, now, default, is_open=True) for each in page],
            next_page_token=fields.page_token(_ESCALATIONS, page[-1].id) if len(left) > size else "",
        )

    async def WatchEscalations(
        self, request: pb.WatchEscalationsRequest, context: Any
    ) -> AsyncGenerator[pb.WatchEscalationsResponse, None]:
        """See the proto."""
        await context.send_initial_metadata(())
        async with aclosing(Board(self._engine).changes()) as changes:
            async for escalation in changes:
                yield pb.WatchEscalationsResponse(escalation=escalation)

    async def ResolveEscalation(
        self, request: pb.ResolveEscalationRequest, context: Any
    ) -> pb.ResolveEscalationResponse:
        """See the proto."""
        command = commands.ResolveEscalation(
            id=request.escalation_id,
            decision=fields.choice("decision", request.decision, min(Decision), max(Decision)),
            decided_by=fields.text("decided_by", request.decided_by, limits.WORKER_BYTES_MAX),
            reason=fields.text("reason", request.reason, limits.REASON_BYTES_MAX, is_required=False),
        )
        resolved = (await self._backend.ask(command, outcomes.EscalationResolved)).escalation
        _logger.warning(
            "escalation decided",
            id=resolved.id,
            name=resolved.subject,
            worker=resolved.worker,
            decision=Decision(command.decision).name.lower(),
            decided_by=command.decided_by,
            reason=command.reason,
        )
        default, _ = await self._engine.read(open_escalations)
        return pb.ResolveEscalationResponse(
            escalation=messages.escalation(resolved, self._engine.now(), default, is_open=False)
        )

    async def Backup(
        self, request: pb.BackupRequest, context: Any
    ) -> AsyncGenerator[pb.BackupResponse, None]:
        """See the proto."""
        # Not of an engine that has failed: what it shows can't be trusted.
        await self._engine.read(lambda *_: None)
        try:
            async with self._engine.store.copied() as copy:
                _logger.info("backup", sequence=copy.sequence, bytes=copy.size)
                yield pb.BackupResponse(header=_header(copy))
                async with aclosing(copy.chunks()) as chunks:
                    async for chunk in chunks:
                        yield pb.BackupResponse(chunk=chunk)
        except CopyRefused as refused:
            raise FailedPrecondition("BACKUP_REFUSED", str(refused), cause=refused.reason) from refused


def _header(copy: Copy) -> pb.BackupHeader:
    return pb.BackupHeader(
        size=copy.size,
        at=messages.timestamp(copy.instant),
        last_id=copy.last_id,
        sequence=copy.sequence,
    )


def _page(collection: str, views: Sequence[View], after: str, size: int) -> tuple[Sequence[View], str]:
    first = bisect_right(views, after, key=lambda view: view.name)
    page = views[first : first + size]
    is_last = first + size >= len(views)
    return page, "" if is_last else fields.page_token(collection, page[-1].name)


def _filter(request: pb.WatchEventsRequest) -> events.Filter:
    subjects = {
        fields.choice("subjects", subject, 0, max(pb.Subject.values())) for subject in request.subjects
    }
    return events.Filter(
        # SUBJECT_UNSPECIFIED: any.
        subjects=frozenset() if pb.SUBJECT_UNSPECIFIED in subjects else subjects,
        types={fields.choice("types", type_, 1, max(pb.EventType.values())) for type_ in request.types},
        worker=fields.worker_filter(request.worker),
    )
