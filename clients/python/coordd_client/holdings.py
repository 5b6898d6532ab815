"""What a block holds, and what its end says of it: pure, so that the async and the blocking client share it.

What the block says last wins. Where it says nothing, a clean end means that the worker acted, and an
exception that it did not (lock), or that upstream has counted the call all the same (permit).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from coordd.v1 import reservation_pb2 as pb
from coordd_client import arguments, bundles, locks, permits, reservations
from coordd_client.messages import Call, Terms
from coordd_client.values import Bundle, Lock, Outcome, Permit, Reservation, UsageResult

T = TypeVar("T")

# Called once, with the seconds left, when the daemon says that it takes away what a block holds.
OnPreempted = Callable[[float], None]

_HTTP_ERROR_MIN = 400


class Holding(Generic[T]):
    """Something granted, with its time left counted on one's own clock."""

    def __init__(self, terms: Terms[T], now: Callable[[], float]) -> None:
        self._terms = terms
        self._now = now
        self._grant: T | None = None
        self._ends_s = 0.0
        # When it is taken, whatever it is renewed to.
        self._taken_s = math.inf
        self._has_ended = False
        self._on_preempted: OnPreempted | None = None

    def __repr__(self) -> str:
        parts = (*self._asked(self._terms.once.request), *self._state())
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def grant(self) -> T:
        """The grant as the daemon sent it. Raises: RuntimeError outside of the block."""
        if self._grant is None:
            raise RuntimeError("nothing is held before the block begins")
        return self._grant

    @property
    def left_s(self) -> float:
        """Seconds left, on this machine's own clock; 0 when it, or the block, has ended."""
        return 0.0 if self._has_ended else max(0.0, self._ends_s - self._now())

    @property
    def is_preempted(self) -> bool:
        """Whether the daemon takes it away before its time: bring the work to an end within `left_s`."""
        return self._taken_s < math.inf

    @property
    def lease_ids(self) -> tuple[int, ...]:
        """What a session would have to keep for this to be kept: fencing tokens and ids."""
        return ()

    def require_unused(self) -> None:
        """Raises: RuntimeError if something has been held before: its request id is used up."""
        if self._grant is not None:
            raise RuntimeError("a block can be entered only once; make another one")

    def hold(self, grant: T, as_of_s: float) -> None:
        """Begins with a grant whose time left counts from `as_of_s`."""
        self._grant = grant
        self.extend(self._terms.left_s(grant), as_of_s)

    def extend(self, left_s: float, as_of_s: float) -> None:
        """Sets the time left, as counted from `as_of_s`."""
        self._ends_s = min(as_of_s + left_s, self._taken_s)

    def keep(self, left_s: float, as_of_s: float) -> None:
        """Sets the time left likewise, unless more is known to be left already."""
        self.extend(max(left_s, self._ends_s - as_of_s), as_of_s)

    def preempt(self, within_s: float) -> None:
        """Ends, in `within_s` seconds, whatever it is renewed to; tells the block, once."""
        was_preempted = self.is_preempted
        self._taken_s = min(self._taken_s, self._now() + within_s)
        self._ends_s = min(self._ends_s, self._taken_s)
        if self._on_preempted is not None and not was_preempted:
            self._on_preempted(self.left_s)

    def end(self) -> None:
        """Ends with the block, whatever becomes of giving it back: nothing may be done under it any more."""
        self._has_ended = True

    def ending(self, error: BaseException | None) -> Call[object]:
        """Returns the call that gives it back, after a block that ended with `error` or cleanly."""
        raise NotImplementedError

    def _asked(self, request: Any) -> tuple[str, ...]:
        raise NotImplementedError

    def _id(self, grant: T) -> str:
        raise NotImplementedError

    def _state(self) -> tuple[str, ...]:
        if self._grant is None:
            return ("not held yet",)
        # Rounded down: to be shown more than there is, is worse.
        return (self._id(self._grant), "ended" if self._has_ended else f"left {_whole(self.left_s)} s")


def _whole(left_s: float) -> str:
    return "inf" if left_s == math.inf else str(int(left_s))


class _Acting:
    """What a block says of how it has acted on an item."""

    _said: Outcome | None = None

    def succeeded(self) -> None:
        """The worker has acted, whatever else goes wrong from here on."""
        self._said = Outcome.SUCCESS

    def failed(self) -> None:
        """The worker has not acted and will not: the item is free for the next one."""
        self._said = Outcome.FAILURE

    def unknown(self) -> None:
        """The worker may have acted: counts as acted."""
        self._said = Outcome.UNKNOWN

    def outcome(self, error: BaseException | None) -> Outcome:
        """Returns what goes into history, after a block that ended with `error` or cleanly."""
        return self._said or (Outcome.SUCCESS if error is None else Outcome.FAILURE)


class _Calling:
    """What a block says of the calls that it has made."""

    _said: UsageResult | None = None
    _status_code = 0
    _headers: tuple[tuple[str, str], ...] = ()

    def response(self, status_code: int, headers: permits.Headers = ()) -> None:
        """Hands over upstream's response as it came; 400 and above is a failure unless said otherwise.

        Raises: TypeError; ValueError if `status_code` is not within 100..599. The permit is settled none the
        less, with the status if that was right.
        """
        self._status_code = arguments.status_code(status_code)
        self._headers = tuple(permits.header_pairs(headers))

    def succeeded(self) -> None:
        """The call was made and upstream accepted it."""
        self._said = UsageResult.SUCCESS

    def failed(self) -> None:
        """The call was made, or may have been, and failed. Upstream has counted it."""
        self._said = UsageResult.FAILURE

    def not_sent(self) -> None:
        """The call was never sent: its permits go back."""
        self._said = UsageResult.NOT_SENT

    def usage(self, error: BaseException | None) -> tuple[UsageResult, int, tuple[tuple[str, str], ...]]:
        """Returns what became of the permit, after a block that ended with `error` or cleanly."""
        return self._said or self._by_end(error), self._status_code, self._headers

    def _by_end(self, error: BaseException | None) -> UsageResult:
        # A response speaks for itself: what the caller raises after it (as for status) changes nothing
        # upstream.
        is_failure = self._status_code >= _HTTP_ERROR_MIN if self._status_code else error is not None
        return UsageResult.FAILURE if is_failure else UsageResult.SUCCESS


class LockHolding(_Acting, Holding[Lock]):
    """A held lock.

    Say `unknown()` before an act that may succeed without your hearing of it, and `succeeded()` after it. An
    exception, a cancellation included, records FAILURE unless the block has said otherwise: the next may act.
    """

    @property
    def fencing_token(self) -> int:
        """Hand it to whatever the lock protects: a larger token is a later grant."""
        return self.grant.fencing_token

    @property
    def lease_ids(self) -> tuple[int, ...]:
        """See Holding."""
        return (self.fencing_token,)

    def ending(self, error: BaseException | None) -> Call[object]:
        """See Holding."""
        return locks.release(self.grant, self.outcome(error))

    def _asked(self, request: Any) -> tuple[str, ...]:
        return (repr(request.item), f"kind={request.kind!r}")

    def _id(self, grant: Lock) -> str:
        return f"token={grant.fencing_token}"


class _Working(Holding[T]):
    """What a block says of how its resource has borne the work, and how long the block took."""

    _is_overloaded = False
    _latency_s: float | None = None
    _begun_s = 0.0
    _lasted_s = 0.0

    def overloaded(self) -> None:
        """The resource can't do so much at once: it timed out, refused the connection, answered 5xx.

        An adaptive pool gets smaller for it.
        """
        self._is_overloaded = True

    def latency(self, seconds: float) -> None:
        """So long did the resource take, if not as long as the block lasts.

        Raises: TypeError, InvalidRequest.
        """
        self._latency_s = arguments.seconds("latency", seconds)

    def hold(self, grant: T, as_of_s: float) -> None:
        """See Holding."""
        super().hold(grant, as_of_s)
        self._begun_s = self._now()

    def end(self) -> None:
        """See Holding."""
        super().end()
        self._lasted_s = self._now() - self._begun_s

    def work(self, error: BaseException | None) -> tuple[pb.WorkResult.ValueType, float | None]:
        """Returns how the work went and its seconds, None not said, after a block that ended with `error`."""
        if self._is_overloaded:
            return pb.WORK_RESULT_OVERLOADED, self._latency_s
        if error is not None:
            return pb.WORK_RESULT_UNSPECIFIED, self._latency_s
        return pb.WORK_RESULT_SUCCESS, self._lasted_s if self._latency_s is None else self._latency_s


class ReservationHolding(_Working[Reservation]):
    """A live reservation.

    An adaptive pool learns from how the block went. A clean end says that the work went well and took as long
    as the block, unless `latency()` says how long. An exception says nothing, for it may be the worker's own
    fault: say `overloaded()` where it is the resource's.
    """

    _unused_units = 0

    @property
    def reservation_id(self) -> int:
        """Names the reservation; later grants have larger ids."""
        return self.grant.reservation_id

    @property
    def lease_ids(self) -> tuple[int, ...]:
        """See Holding."""
        return (self.reservation_id,)

    def unused(self, units: int) -> None:
        """So many units of a refilling pool were not used and go back. Held units go back by themselves.

        Raises: TypeError, InvalidRequest.
        """
        self._unused_units = arguments.count("units", units)

    def ending(self, error: BaseException | None) -> Call[object]:
        """See Holding."""
        result, latency_s = self.work(error)
        return reservations.release(self.grant, self._unused_units, result=result, latency_s=latency_s)

    def _asked(self, request: Any) -> tuple[str, ...]:
        resource_id = (repr(request.resource_id),) if request.resource_id else ()
        units = (f"units={request.units}",) if request.units else ()
        return (repr(request.type), *resource_id, *units)

    def _id(self, grant: Reservation) -> str:
        return f"id={grant.reservation_id}"


class PermitHolding(_Calling, Holding[Permit]):
    """The right to make calls. Look at `use_within_s` before each: a late one may exceed upstream's limit."""

    @property
    def permit_id(self) -> int:
        """Names the permit."""
        return self.grant.permit_id

    @property
    def use_within_s(self) -> float:
        """Seconds left in which to make the calls, on this machine's own clock; 0: too late."""
        return self.left_s

    def ending(self, error: BaseException | None) -> Call[object]:
        """See Holding."""
        return permits.record_usage(self.grant, *self.usage(error))

    def _asked(self, request: Any) -> tuple[str, ...]:
        return (repr(request.endpoint), f"permits={request.permits}")

    def _id(self, grant: Permit) -> str:
        return f"id={grant.permit_id}"


class BundledLock(_Acting):
    """One lock of a bundle; see LockHolding for what to say of it."""

    def __init__(self, grant: Lock) -> None:
        self.grant = grant

    def __repr__(self) -> str:
        return f"BundledLock({self.grant.item!r}, kind={self.grant.kind!r}, token={self.fencing_token})"

    @property
    def fencing_token(self) -> int:
        """Hand it to whatever the lock protects: a larger token is a later grant."""
        return self.grant.fencing_token


class BundledPermit(_Calling):
    """One permit of a bundle; see PermitHolding for what to say of it."""

    def __init__(self, grant: Permit, left_s: Callable[[], float]) -> None:
        self.grant = grant
        self._left_s = left_s

    def __repr__(self) -> str:
        return f"BundledPermit({self.grant.endpoint!r}, id={self.permit_id})"

    @property
    def permit_id(self) -> int:
        """Names the permit."""
        return self.grant.permit_id

    @property
    def use_within_s(self) -> float:
        """Seconds left in which to make the calls, on this machine's own clock; 0: too late."""
        return self._left_s()


class BundleHolding(_Working[Bundle]):
    """A held bundle: each sort in the order of its claims, `lock`, `permit`, `reservation` for the only one.

    What is said of the bundle is said of every lock in it; `locks` and `permits` may each say otherwise. Of
    its reservations it says what a reservation's block says, of all the same.
    """

    def __init__(self, terms: Terms[Bundle], now: Callable[[], float]) -> None:
        super().__init__(terms, now)
        self._locks: tuple[BundledLock, ...] = ()
        self._permits: tuple[BundledPermit, ...] = ()

    @property
    def bundle_id(self) -> int:
        """Names the bundle."""
        return self.grant.bundle_id

    @property
    def locks(self) -> tuple[BundledLock, ...]:
        """Its locks. Raises: RuntimeError outside of the block."""
        _ = self.grant
        return self._locks

    @property
    def reservations(self) -> tuple[Reservation, ...]:
        """Its reservations. Raises: RuntimeError outside of the block."""
        return self.grant.reservations

    @property
    def permits(self) -> tuple[BundledPermit, ...]:
        """Its permits. Raises: RuntimeError outside of the block."""
        _ = self.grant
        return self._permits

    @property
    def lock(self) -> BundledLock:
        """Its only lock. Raises: LookupError if there is none, or more than one."""
        return _only("lock", self.locks)

    @property
    def reservation(self) -> Reservation:
        """Its only reservation. Raises: LookupError if there is none, or more than one."""
        return _only("reservation", self.reservations)

    @property
    def permit(self) -> BundledPermit:
        """Its only permit. Raises: LookupError if there is none, or more than one."""
        return _only("permit", self.permits)

    @property
    def lease_ids(self) -> tuple[int, ...]:
        """See Holding."""
        return self.grant.lease_ids

    def hold(self, grant: Bundle, as_of_s: float) -> None:
        """See Holding."""
        super().hold(grant, as_of_s)
        self._locks = tuple(map(BundledLock, grant.locks))
        self._permits = tuple(
            BundledPermit(permit, functools.partial(self._left_of, as_of_s + permit.use_within_s))
            for permit in grant.permits
        )

    def succeeded(self) -> None:
        """The worker has acted on every item, whatever else goes wrong from here on."""
        for lock in self.locks:
            lock.succeeded()

    def failed(self) -> None:
        """The worker has acted on no item and will not: they are free for the next one."""
        for lock in self.locks:
            lock.failed()

    def unknown(self) -> None:
        """The worker may have acted on any of the items: counts as acted."""
        for lock in self.locks:
            lock.unknown()

    def ending(self, error: BaseException | None) -> Call[object]:
        """See Holding."""
        outcomes = {lock.fencing_token: lock.outcome(error) for lock in self.locks}
        usages = [bundles.usage(permit.grant, *permit.usage(error)) for permit in self.permits]
        if not self.reservations:
            return bundles.release(self.grant, outcomes, usages)
        result, latency_s = self.work(error)
        return bundles.release(self.grant, outcomes, usages, result=result, latency_s=latency_s)

    def _left_of(self, ends_s: float) -> float:
        return 0.0 if self._has_ended else max(0.0, ends_s - self._now())

    def _asked(self, request: Any) -> tuple[str, ...]:
        return tuple(map(_shown, request.claims))

    def _id(self, grant: Bundle) -> str:
        return f"id={grant.bundle_id}"


def _only(what: str, members: tuple[T, ...]) -> T:
    if len(members) != 1:
        raise LookupError(f"the bundle has {len(members)} {what}s: take one of `{what}s`")
    return members[0]


def _shown(claim: Any) -> str:
    sort = claim.WhichOneof("claim")
    fields = getattr(claim, sort)
    name = {"lock": "item", "reservation": "type", "permit": "endpoint"}[sort]
    return f"{sort} {getattr(fields, name)!r}"
