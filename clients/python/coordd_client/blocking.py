"""The client for scripts that have no event loop: the same calls, values and errors, and `with` blocks.

What it leaves out: nothing runs beside your code, so a lock or reservation does not renew itself and is not
cancelled when it is lost, and there are no sessions, which would have to be kept. Take a `ttl` that covers
the work, or `renew()` between steps and look at `left_s`.
"""

import functools
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import grpc

from coordd_client import arguments, bundles, escalations, locks, reservations
from coordd_client import permits as permit_calls
from coordd_client.attempts import Attempts, attempts, cancelled
from coordd_client.binding import named_after
from coordd_client.caller import WAIT_S_MIN, OnQueued, Stamped, is_answer, still_held, warn_of
from coordd_client.claims import Claim
from coordd_client.client import DEFAULT_ADDRESS
from coordd_client.errors import CoorddError, DeadlineExceeded, Unavailable, raise_for
from coordd_client.holdings import (
    BundleHolding,
    Holding,
    LockHolding,
    OnPreempted,
    PermitHolding,
    ReservationHolding,
)
from coordd_client.messages import Call, Method, Page, Terms, Wait, codecs, path_of, stream_ended
from coordd_client.retries import Backoff, Config
from coordd_client.target import Target, Tls
from coordd_client.transport import CHANNEL_OPTIONS
from coordd_client.values import (
    Bundle,
    Escalation,
    Lock,
    OnConflict,
    Permit,
    Priority,
    Queued,
    Reservation,
    WorkerShare,
)

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["Client", "HeldBundle", "HeldLock", "HeldPermit", "HeldReservation"]

P = ParamSpec("P")
T = TypeVar("T")


class _Caller:
    """As coordd_client.caller, but blocking."""

    def __init__(self, worker: str, channel: grpc.Channel, config: Config, attempt: Attempts) -> None:
        self.worker = worker
        self.config = config
        self._channel = channel
        self._attempt = attempt
        self.open_blocks: set[object] = set()

    def close(self) -> None:
        left_open = still_held(self.open_blocks)
        self._channel.close()
        warn_of(left_open)

    def call(self, call: Call[T], timeout_s: float | None = None) -> Stamped[T]:
        end_s = time.monotonic() + (timeout_s or self.config.call_timeout_s)
        backoff = Backoff(self.config)
        while True:
            sent_s = time.monotonic()
            try:
                return Stamped(call.read(self._try(call.method, call.request, end_s - sent_s)), sent_s)
            except Unavailable as error:
                _pause(backoff, error, end_s)

    def ask(self, terms: Terms[T], wait_s: float | None, on_queued: OnQueued | None) -> Stamped[T]:
        wait = terms.wait if wait_s else None
        try:
            return self.wait(wait, wait_s, on_queued) if wait and wait_s else self.call(terms.once)
        except BaseException as error:  # what a signal's handler raises, and what `on_queued` raises, too
            if not is_answer(error):
                self._forgo(terms, wait)
            raise

    def wait(self, wait: Wait[T], wait_s: float, on_queued: OnQueued | None) -> Stamped[T]:
        end_s = time.monotonic() + wait_s
        backoff = Backoff(self.config)
        left_s = wait_s
        while True:
            try:
                return self._follow(wait, left_s, on_queued, backoff)
            except Unavailable as error:
                _pause(backoff, error, end_s)
            left_s = max(end_s - time.monotonic(), WAIT_S_MIN)

    def listen(self, method: Method[Any, Any], timeout_s: float) -> Iterator[Any]:
        stream = self._channel.unary_stream(method.path, **codecs(method))
        try:
            with (
                self._attempt(method.path) as metadata,
                cancelled(stream(method.request(), timeout=timeout_s, metadata=metadata)) as messages,
            ):
                yield from messages
        except grpc.RpcError as error:
            raise_for(error)

    def _try(self, method: Method[Any, Any], request: Any, timeout_s: float) -> Any:
        try:
            rpc = self._channel.unary_unary(path_of(method, request), **codecs(method))
            with self._attempt(method.path) as metadata:
                return rpc(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise_for(error)

    def _follow(
        self, wait: Wait[T], left_s: float, on_queued: OnQueued | None, backoff: Backoff
    ) -> Stamped[T]:
        timeout_s = left_s + self.config.wait_grace_s
        request = wait.within(left_s)
        stream = self._channel.unary_stream(path_of(wait.method, request), **codecs(wait.method))
        try:
            with (
                self._attempt(wait.method.path) as metadata,
                cancelled(stream(request, timeout=timeout_s, metadata=metadata)) as messages,
            ):
                for message in messages:
                    backoff.reset()
                    event = wait.event(message)
                    if not isinstance(event, Queued):
                        return Stamped(event, time.monotonic())
                    if on_queued is not None:
                        on_queued(event)
        except grpc.RpcError as error:
            raise_for(error)
        raise stream_ended()

    def _forgo(self, terms: Terms[T], wait: Wait[T] | None) -> None:
        try:
            granted = self.wait(wait, WAIT_S_MIN, None) if wait else self.call(terms.once)
            self.call(terms.forgo(granted.value))
        except CoorddError:
            return  # there was nothing, or it runs out by itself


def _pause(backoff: Backoff, error: CoorddError, end_s: float) -> None:
    pause_s = backoff.pause_s(error)
    if pause_s is None or time.monotonic() + pause_s >= end_s:
        raise error
    time.sleep(pause_s)


class _Block(Holding[T]):
    def __init__(
        self,
        caller: _Caller,
        terms: Terms[T],
        wait_s: float | None,
        on_queued: OnQueued | None,
        on_preempted: OnPreempted | None = None,
    ) -> None:
        super().__init__(terms, time.monotonic)
        self._caller = caller
        self._wait_s = arguments.optional_seconds("wait", wait_s)
        self._on_queued = arguments.callback("on_queued", "each Queued", on_queued)
        self._on_preempted = arguments.callback("on_preempted", "the seconds left", on_preempted)

    def __enter__(self) -> Self:
        self.require_unused()
        granted = self._caller.ask(self._terms, self._wait_s, self._on_queued)
        self.hold(granted.value, granted.as_of_s)
        self._caller.open_blocks.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self._caller.open_blocks.discard(self)
        try:
            self._caller.call(self.ending(error), self._caller.config.release_timeout_s)
        except CoorddError as failure:
            if error is None:
                raise
            error.add_note(f"coordd_client: could not give it back: {failure}")

    def _renew(self) -> None:
        if self._terms.renew is not None:
            renewed = self._caller.call(self._terms.renew(self.grant))
            self.extend(renewed.value.left_s, renewed.as_of_s)
            if renewed.value.is_preempted:
                self.preempt(self.left_s)


class HeldLock(_Block[Lock], LockHolding):
    """`with client.lock(...) as lock`: a lock, held for its `ttl` unless renewed."""

    def renew(self) -> None:
        """Extends the lock from now by its `ttl`. Raises: LeaseLost, NotHolder, Unavailable."""
        self._renew()


class HeldReservation(_Block[Reservation], ReservationHolding):
    """`with client.reservation(...)`: a reservation, held for its `ttl` unless renewed."""

    def renew(self) -> None:
        """Extends it from now by its `ttl`. Raises: LeaseLost, NotHolder, Unavailable."""
        self._renew()


class HeldPermit(_Block[Permit], PermitHolding):
    """`with client.permit(...) as permit`: a permit that is settled when the block ends."""


class HeldBundle(_Block[Bundle], BundleHolding):
    """`with client.bundle(...) as bundle`: all of it or none, held for the shortest `ttl` unless renewed."""

    def renew(self) -> None:
        """Extends every lease of it from now by its `ttl`. Raises: LeaseLost, NotHolder, Unavailable."""
        self._renew()


def _method(build: Callable[P, Call[T]]) -> Callable[Concatenate["Client", P], T]:
    @named_after(build)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._caller.call(build(*args, **kwargs)).value

    return method


def _worker_method(
    build: Callable[Concatenate[str, P], Call[T]],
) -> Callable[Concatenate["Client", P], T]:
    @named_after(build, has_worker=True)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._caller.call(build(self.worker, *args, **kwargs)).value

    return method


class Client:
    """One worker's blocking client of one daemon; a `channel` may stand in for `address`."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        worker: str,
        namespace: str | None = None,
        token: str | None = None,
        tls: Tls | None = None,
        config: Config | None = None,
        channel: grpc.Channel | None = None,
        traces: "TracerProvider | None" = None,
    ) -> None:
        worker = arguments.text("worker", worker)
        target = Target(address, tls=tls, token=token, namespace=namespace)
        own = channel or target.open(grpc.insecure_channel, grpc.secure_channel, CHANNEL_OPTIONS)
        self._caller = _Caller(worker, own, config or Config(), attempts(target.metadata(), traces))

    @property
    def worker(self) -> str:
        """Who asks."""
        return self._caller.worker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._caller.close()

    def close(self) -> None:
        """Closes the channel. Warns with a ResourceWarning of each block that has not ended."""
        self._caller.close()

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
        """Returns a block that holds the lock on `item`. See coordd_client.Client.lock."""
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
        """Returns a block that holds a resource or units. See coordd_client.Client.reservation."""
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
        """Returns a block that may call `endpoint`. See coordd_client.Client.permit; bookings do not wait."""
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
        """Returns a block that holds all of `claims` or nothing. See coordd_client.Client.bundle."""
        terms = bundles.terms(
            self.worker, claims, priority=priority, quality=quality, on_conflict=on_conflict
        )
        return HeldBundle(self._caller, terms, wait, on_queued, on_preempted)

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

    def watch_escalations(self) -> Iterator[Escalation]:
        """Yields the open escalations, then each that changes. See coordd_client.Client.watch_escalations."""
        backoff = Backoff(self._caller.config)
        while True:
            try:
                for message in self._caller.listen(escalations.WATCH, escalations.WATCH_S):
                    backoff.reset()
                    yield escalations.read_escalation(message.escalation)
            except DeadlineExceeded:
                continue
            except Unavailable as error:
                pause_s = backoff.pause_s(error)
                if pause_s is None:
                    raise
                time.sleep(pause_s)

    def locks(self, *, worker: str = "", page_size: int = 100) -> Iterator[Lock]:
        """Yields the live locks, oldest token first, of one worker (empty: of all)."""
        return self._entries(functools.partial(locks.list_locks, page_size=page_size, worker=worker))

    def reservations(
        self, *, worker: str = "", type: str = "", page_size: int = 100
    ) -> Iterator[Reservation]:
        """Yields the live reservations, oldest id first, of one worker and type (empty: of all)."""
        return self._entries(
            functools.partial(reservations.list_reservations, page_size=page_size, worker=worker, type_=type)
        )

    def worker_allocations(self, endpoint: str, *, page_size: int = 100) -> Iterator[WorkerShare]:
        """Yields the workers that share `endpoint` now, by name: none unless its allocation is fair."""
        return self._entries(
            functools.partial(permit_calls.list_allocations, endpoint=endpoint, page_size=page_size)
        )

    def _entries(self, page: Callable[[str], Call[Page[T]]]) -> Iterator[T]:
        token, is_last = "", False
        while not is_last:
            got = self._caller.call(page(token)).value
            yield from got.entries
            token = got.next_page_token
            is_last = not token
