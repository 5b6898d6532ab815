"""The async client.

Three times are kept apart: how long to wait for a grant (`wait`), how long to hold it unless renewed
(`ttl`), and how long a call may take (`Config`). All are seconds.
"""

import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from coordd_client import arguments, bundles, escalations, locks, reservations, sessions
from coordd_client import permits as permit_calls
from coordd_client.binding import named_after
from coordd_client.blocks import HeldBundle, HeldLock, HeldPermit, HeldReservation
from coordd_client.caller import Caller, OnQueued
from coordd_client.claims import Claim
from coordd_client.errors import DeadlineExceeded, Unavailable
from coordd_client.held_session import HeldSession, OnRevoked
from coordd_client.holdings import OnPreempted
from coordd_client.messages import Call, Page
from coordd_client.retries import Backoff, Config
from coordd_client.target import Target, Tls
from coordd_client.transport import Clock, GrpcTransport, MonotonicClock, Transport
from coordd_client.values import Escalation, Lock, OnConflict, Priority, Reservation, WorkerShare

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_ADDRESS = "127.0.0.1:7651"


def _method(build: Callable[P, Call[T]]) -> Callable[Concatenate["Client", P], Coroutine[Any, Any, T]]:
    @named_after(build)
    async def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._caller.call(build(*args, **kwargs))

    return method


def _worker_method(
    build: Callable[Concatenate[str, P], Call[T]],
) -> Callable[Concatenate["Client", P], Coroutine[Any, Any, T]]:
    @named_after(build, has_worker=True)
    async def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._caller.call(build(self.worker, *args, **kwargs))

    return method


class Client:
    """One worker's client of one daemon; use it as `async with`, so that nothing is left taken behind it.

    Calls are retried while the daemon is unavailable, under one request id each. Any number may be under
    way at once.

    Args:
        address: `host:port` of the daemon, or `unix:/path` of its socket.
        worker: who asks, 1..128 bytes; no two processes may share one name.
        namespace: the fleet's world in a daemon that several share. None: `default`.
        token: who the client is, where the daemon asks. It goes only through TLS, a Unix socket or loopback.
        tls: how the daemon is known. None: in the clear.
        config: timeouts and pauses.
        transport: instead of gRPC to `address`, as for tests.
        clock: instead of this machine's, as for tests.
        traces: OpenTelemetry's, for a span of each call that the daemon's own continue; None: none.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        worker: str,
        namespace: str | None = None,
        token: str | None = None,
        tls: Tls | None = None,
        config: Config | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        traces: "TracerProvider | None" = None,
    ) -> None:
        self._caller = Caller(
            arguments.text("worker", worker),
            transport
            or GrpcTransport(Target(address, tls=tls, token=token, namespace=namespace), traces=traces),
            clock or MonotonicClock(),
            config or Config(),
        )

    @property
    def worker(self) -> str:
        """Who asks."""
        return self._caller.worker

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._caller.close()

    async def close(self) -> None:
        """Finishes what is being given back, then closes. Every block must have ended before.

        Warns with a ResourceWarning of each that has not: what it holds is not given back, but runs out.
        """
        await self._caller.close()

    # ---- what is held for the length of a block

    def lock(
        self,
        item: str,
        *,
        kind: str,
        wait: float | None = None,
        ttl: float | None = None,
        priority: Priority = Priority.MEDIUM,
        quality: float | None = None,
        on_conflict: OnConflict | None = None,
        on_queued: OnQueued | None = None,
        on_preempted: OnPreempted | None = None,
    ) -> HeldLock:
        """Returns a block that holds the lock on `item`; it renews itself until the block ends.

        How the block ends goes into history: cleanly SUCCESS, by an exception FAILURE, or as
        `lock.succeeded()`, `lock.failed()` or `lock.unknown()` last said. If the lease is lost the block is
        cancelled and raises LeaseLost.

        Args:
            item: what is to be acted upon, 1..512 bytes.
            kind: of engagement, one from the daemon's configuration.
            wait: seconds to wait for it. None or 0: ask once.
            ttl: seconds to hold it unless renewed. None: the kind's default.
            priority: who goes first where several wait.
            quality: of what the worker would do, 0..1.
            on_conflict: where it waits and somebody holds it. None: as configured.
            on_queued: called with each change of the wait's place.
            on_preempted: called once, with the seconds left, when a coordination worker has decided to take
                it away; `is_preempted` says so from then on. Without a session it is heard of at a renewal.

        Raises:
            Refused: when the block is entered; WaitTimeout or Superseded where it waits.
            CoorddError: QueueFull, InvalidRequest, Unavailable, DeadlineExceeded.
        """
        terms = locks.terms(
            self.worker, item, kind=kind, ttl=ttl, priority=priority, quality=quality, on_conflict=on_conflict
        )
        return HeldLock(self._caller, terms, wait, on_queued, on_preempted)

    def reservation(
        self,
        type: str,
        resource_id: str | None = None,
        *,
        units: int = 0,
        wait: float | None = None,
        ttl: float | None = None,
        priority: Priority = Priority.MEDIUM,
        on_conflict: OnConflict | None = None,
        on_queued: OnQueued | None = None,
        on_preempted: OnPreempted | None = None,
    ) -> HeldReservation:
        """Returns a block that holds a resource, or units of its type's pool; it renews itself until its end.

        Units of a pool that refills cannot be renewed: the block must end before they run out, or raises
        LeaseLost.

        Args:
            type: of resource, one from the daemon's configuration.
            resource_id: the resource, exclusively. None: units only.
            units: of the type's pool; 0 means 1 where there is a pool.
            wait: seconds to wait for it. None or 0: ask once.
            ttl: seconds to hold it unless renewed. None: the type's default.
            priority: who goes first where several wait.
            on_conflict: where it waits and somebody holds it. None: as configured.
            on_queued: called with each change of the wait's place.
            on_preempted: called once, with the seconds left, when a coordination worker has decided to take
                it away; `is_preempted` says so from then on. Without a session it is heard of at a renewal.

        Raises:
            Refused: when the block is entered; WaitTimeout or Superseded where it waits.
            CoorddError: OutOfRange, QueueFull, InvalidRequest, Unavailable, DeadlineExceeded.
        """
        terms = reservations.terms(
            self.worker, type, resource_id, units=units, ttl=ttl, priority=priority, on_conflict=on_conflict
        )
        return HeldReservation(self._caller, terms, wait, on_queued, on_preempted)

    def permit(
        self,
        endpoint: str,
        permits: int = 1,
        *,
        wait: float | None = None,
        priority: Priority = Priority.MEDIUM,
        booking_id: int | None = None,
        on_queued: OnQueued | None = None,
    ) -> HeldPermit:
        """Returns a block that has the right to call `endpoint`, and is settled when it ends.

        Hand upstream's answer to `permit.response(status_code, headers)`. Cleanly ended it counts as
        SUCCESS, by an exception before any answer as FAILURE, since upstream may have counted it; say
        `permit.not_sent()` to give it back. `permit.use_within_s` is the time left to make the calls; the
        block is not cancelled when it has passed.

        Args:
            endpoint: one from the daemon's configuration.
            permits: how many calls.
            wait: seconds to wait for them. None or 0: ask once.
            priority: who goes first where several wait.
            booking_id: claims this booking; with `wait`, once its time has come. It sets `permits`.
            on_queued: called with each change of the wait's place; a booking has none.

        Raises:
            Refused: when the block is entered; WaitTimeout or Superseded where it waits.
            CoorddError: OutOfRange, BookingLapsed, QueueFull, InvalidRequest, Unavailable, DeadlineExceeded.
        """
        terms = permit_calls.terms(
            self.worker, endpoint, permits=permits, priority=priority, booking_id=booking_id
        )
        return HeldPermit(self._caller, terms, wait, on_queued)

    def bundle(
        self,
        *claims: Claim,
        wait: float | None = None,
        priority: Priority = Priority.MEDIUM,
        quality: float | None = None,
        on_conflict: OnConflict | None = None,
        on_queued: OnQueued | None = None,
        on_preempted: OnPreempted | None = None,
    ) -> HeldBundle:
        """Returns a block that holds all of `claims` or nothing; it renews itself until the block ends.

        While it waits it holds nothing, so that no two bundles can wait for each other. How the block ends
        goes into the history of every lock, and settles every permit, in one commit: see `lock` and `permit`.
        `bundle.lock.unknown()` and `bundle.permit.response(...)` say more; `bundle.succeeded()` speaks for
        all locks. If any lease is lost the block is cancelled, the rest given back, and LeaseLost is raised.

        Args:
            claims: of `coordd_client.claims`: lock, reservation, units, permit; and not_engaged, a condition.
            wait: seconds to wait for it. None or 0: ask once.
            priority: who goes first where several wait.
            quality: of what the worker would do, 0..1.
            on_conflict: where it waits and somebody holds it. None: as configured.
            on_queued: called with each change of the wait's place.
            on_preempted: called once, with the seconds left, when a coordination worker has decided to take
                it away; `is_preempted` says so from then on. Without a session it is heard of at a renewal.

        Raises:
            Refused: when the block is entered, naming what blocks first; WaitTimeout or Superseded where it
                waits.
            CoorddError: OutOfRange, QueueFull, InvalidRequest, Unavailable, DeadlineExceeded.
        """
        terms = bundles.terms(
            self.worker, claims, priority=priority, quality=quality, on_conflict=on_conflict
        )
        return HeldBundle(self._caller, terms, wait, on_queued, on_preempted)

    def session(
        self,
        *,
        worker_class: str = "",
        weight: float | None = None,
        labels: Mapping[str, str] | None = None,
        ttl: float | None = None,
        take_over: bool = False,
        on_revoked: OnRevoked | None = None,
    ) -> HeldSession:
        """Returns a block during which the daemon knows that this worker is there.

        One keepalive then renews all that the client's blocks hold, and the daemon tells at once what it
        takes away: the block that held it is cancelled and raises LeaseLost; if it is taken only in a while,
        `lock.is_preempted` and `lock.left_s` say so. While the daemon is away blocks renew themselves, and it
        is looked for until the block ends. What is taken before the session begins renews itself throughout.

        Args:
            worker_class: one from the configuration, for its weight.
            weight: where shares are proportional. None: as configured.
            labels: for people who look at the daemon's sessions; at most 16.
            ttl: seconds after the last keepalive at which the session ends. None: the daemon's default.
            take_over: ends another process's session of this worker, if one is connected.
            on_revoked: called with each Revoked, of this client's blocks or not.

        Raises:
            SessionTaken: when the block is entered; later it is `session.error`, and blocks renew themselves.
            CoorddError: InvalidRequest, Unavailable, QueueFull where there are too many sessions.
        """
        registration = sessions.register(
            self.worker,
            worker_class=worker_class,
            weight=weight,
            labels=labels,
            ttl=ttl,
            take_over=take_over,
        )
        on_revoked = arguments.callback("on_revoked", "each Revoked", on_revoked)
        return HeldSession(self._caller, registration, on_revoked)

    # ---- plain calls

    get_lock = _method(locks.get_lock)
    has_recent_engagement = _method(locks.has_recent_engagement)
    engagement_stats = _method(locks.engagement_stats)
    check_availability = _method(reservations.check_availability)
    reserve_api_quota = _worker_method(reservations.reserve_api_quota)
    remaining_capacity = _method(permit_calls.remaining_capacity)
    schedule = _worker_method(permit_calls.schedule)
    cancel_schedule = _worker_method(permit_calls.cancel_schedule)
    worker_allocation = _worker_method(permit_calls.worker_allocation)
    system_status = _method(permit_calls.system_status)
    resolve_escalation = _worker_method(escalations.resolve_escalation)

    async def watch_escalations(self) -> AsyncGenerator[Escalation, None]:
        """Yields the open escalations, oldest first, then each that is opened or closed; it does not end.

        For a coordination worker: see `resolve_escalation`. After a lost connection those that are open are
        told again, so that none is missed. Raises: CoorddError if the daemon refuses, or stays away.
        """
        backoff = Backoff(self._caller.config)
        while True:
            stream = self._caller.listen(escalations.WATCH, escalations.WATCH.request(), escalations.WATCH_S)
            try:
                async with contextlib.aclosing(stream):
                    async for message in stream:
                        backoff.reset()
                        yield escalations.read_escalation(message.escalation)
            except DeadlineExceeded:
                continue
            except Unavailable as error:
                pause_s = backoff.pause_s(error)
                if pause_s is None:
                    raise
                await self._caller.clock.sleep(pause_s)

    def locks(self, *, worker: str = "", page_size: int = 100) -> AsyncIterator[Lock]:
        """Yields the live locks, oldest token first, of one worker (empty: of all)."""
        return self._entries(functools.partial(locks.list_locks, page_size=page_size, worker=worker))

    def reservations(
        self,
        *,
        worker: str = "",
        type: str = "",
        page_size: int = 100,
    ) -> AsyncIterator[Reservation]:
        """Yields the live reservations, oldest id first, of one worker and type (empty: of all)."""
        return self._entries(
            functools.partial(reservations.list_reservations, page_size=page_size, worker=worker, type_=type)
        )

    def worker_allocations(self, endpoint: str, *, page_size: int = 100) -> AsyncIterator[WorkerShare]:
        """Yields the workers that share `endpoint` now, by name: none unless its allocation is fair."""
        return self._entries(
            functools.partial(permit_calls.list_allocations, endpoint=endpoint, page_size=page_size)
        )

    async def _entries(self, page: Callable[[str], Call[Page[T]]]) -> AsyncIterator[T]:
        token, is_last = "", False
        while not is_last:
            got = await self._caller.call(page(token))
            for entry in got.entries:
                yield entry
            token = got.next_page_token
            is_last = not token
