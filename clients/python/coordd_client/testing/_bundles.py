"""The double's bundles: claims of the other books, made together or not at all."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from coordd.v1 import bundle_pb2 as pb
from coordd.v1 import common_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2
from coordd_client import bundles
from coordd_client.errors import InvalidRequest, LeaseLost, NotHolder
from coordd_client.messages import duration, seconds
from coordd_client.testing._grants import Book, Shared
from coordd_client.testing._locks import Locks
from coordd_client.testing._permits import Permits
from coordd_client.testing._reservations import Reservations
from coordd_client.testing._waits import Claim, is_hopeless, subject_of


@dataclass
class _Held:
    """The ids of what was taken together. `given_back`: of leases that their holder has ended singly."""

    worker: str
    granted_s: float
    locks: list[int] = field(default_factory=list)
    reservations: list[int] = field(default_factory=list)
    permits: list[int] = field(default_factory=list)


class Bundles(Book):
    """Bundles of what the other books give. A bundle lives as long as any of its members."""

    def __init__(self, shared: Shared, locks: Locks, reservations: Reservations, permits: Permits) -> None:
        super().__init__(shared)
        self._locks = locks
        self._reservations = reservations
        self._permits = permits
        self.claims = {bundles.AWAIT.path: self._claim}
        self.calls = {
            bundles.ACQUIRE.path: lambda request: self.ask(bundles.ACQUIRE, self._claim(request), request),
            bundles.RENEW.path: self._renew,
            bundles.RELEASE.path: self._release,
        }

    def view(self, grant_id: int) -> pb.Bundle:
        """See Book."""
        held: _Held = self.live[grant_id]
        locks = [token for token in held.locks if token in self._locks.live]
        reservations = [each for each in held.reservations if each in self._reservations.live]
        leases = [*(self._locks.live[each] for each in locks)]
        leases += [self._reservations.live[each] for each in reservations]
        ends_s = min((lease.ends_s for lease in leases), default=None)
        return pb.Bundle(
            bundle_id=grant_id,
            worker=held.worker,
            granted_at=self.shared.timeline.instant(held.granted_s),
            locks=map(self._locks.view, locks),
            reservations=map(self._reservations.view, reservations),
            permits=[self._permits.view(each) for each in held.permits if self._permits.is_open(each)],
            expires_in=None if ends_s is None else duration(ends_s - self.now_s),
            lease_ids=[*locks, *reservations],
        )

    def expire(self) -> None:
        """A bundle ends with the last of its members."""
        self.live = {each: held for each, held in self.live.items() if self._is_alive(held)}

    def granted(self, request: Any) -> Any | None:
        """See Book."""
        self.expire()
        return super().granted(request)

    def force(self, grant_id: int) -> bool:
        """Takes all that a bundle holds, as an operator does; says whether there is such a bundle."""
        held = self.live.pop(grant_id, None)
        for token in held.locks if held is not None else ():
            if token in self._locks.live:
                self._locks.end(token, engagement_pb2.OUTCOME_UNKNOWN)
        for reservation_id in held.reservations if held is not None else ():
            self._reservations.live.pop(reservation_id, None)
        return held is not None

    def _is_alive(self, held: _Held) -> bool:
        return (
            any(token in self._locks.live for token in held.locks)
            or any(each in self._reservations.live for each in held.reservations)
            or any(map(self._permits.is_open, held.permits))
        )

    def _claim(self, request: Any) -> Claim:
        locks = [self._locks.claim(each) for each in _locks_of(request)]
        reservations = [self._reservations.claim(each) for each in _reservations_of(request)]
        permits = [self._permits.claim(each) for each in _permits_of(request)]
        claims = [*locks, *reservations, *permits]
        lines = tuple(line for claim in claims for line in claim.lines)
        (line, count), *_ = Counter(lines).most_common(1)
        if count > 1:
            details = {"subject": subject_of(line)}
            raise InvalidRequest("two claims are on one thing", reason="DUPLICATE_CLAIM", metadata=details)

        def grant() -> pb.Bundle:
            held = _Held(request.worker, self.now_s)
            held.locks += [claim.grant().fencing_token for claim in locks]
            held.reservations += [claim.grant().reservation_id for claim in reservations]
            held.permits += [claim.grant().permit_id for claim in permits]
            bundle: pb.Bundle = self.begin(request, held)
            return bundle

        return Claim(lines=lines, obstacle=lambda: self._obstacle(request, claims), grant=grant)

    def _obstacle(self, request: Any, claims: list[Claim]) -> common_pb2.Refusal | None:
        conditions = (self._broken(condition) for condition in request.not_engaged)
        obstacles = (claim.obstacle() for claim in claims)
        found = [refusal for refusal in (*conditions, *obstacles) if refusal is not None]
        if not found:
            return None
        told = common_pb2.Refusal()
        told.CopyFrom(next((refusal for refusal in found if is_hopeless(refusal)), found[0]))
        latest = max(found, key=lambda refusal: refusal.retry_after.ToNanoseconds())
        if latest.HasField("retry_at"):
            told.retry_at.CopyFrom(latest.retry_at)
            told.retry_after.CopyFrom(latest.retry_after)
        return told

    def _broken(self, condition: pb.NotEngaged) -> common_pb2.Refusal | None:
        within_s = seconds(condition.within)
        found = self._locks.engaged(condition.item, condition.kinds, self.now_s - within_s)
        if found is None:
            return None
        at_s, engagement = found
        reason = common_pb2.REFUSAL_REASON_RECENTLY_ENGAGED
        return self.shared.refusal(reason, condition.item, at_s + within_s, engagement.worker)

    def _renew(self, request: pb.RenewBundleRequest) -> pb.RenewBundleResponse:
        self.expire()
        held = self.held_by(request.bundle_id, request.worker)
        lost = [] if held is None else [each for each in held.locks if self._locks.is_lost(each)]
        lost += [] if held is None else [each for each in held.reservations if self._is_lost(each)]
        if held is None or lost:
            raise LeaseLost("a lease is over", reason="LEASE_LOST")
        for book, ids in ((self._locks, held.locks), (self._reservations, held.reservations)):
            for lease in (book.live[each] for each in ids if each in book.live):
                lease.ends_s = self.now_s + lease.ttl_s
                self.shared.timeline.wake_at(lease.ends_s)
        return pb.RenewBundleResponse(bundle=self.view(request.bundle_id))

    def _is_lost(self, reservation_id: int) -> bool:
        return reservation_id not in self._reservations.live and not self._reservations.was_released(
            reservation_id
        )

    def _release(self, request: pb.ReleaseBundleRequest) -> pb.ReleaseBundleResponse:
        self.expire()
        held: _Held | None = self.held_by(request.bundle_id, request.worker)
        outcomes = {each.fencing_token: each.outcome for each in request.outcomes}
        locks = [] if held is None else [token for token in held.locks if token in self._locks.live]
        self._check(request, held, outcomes, locks)
        before = [entry for token in outcomes for entry in self._locks.released(token)]
        for token in locks:
            self._locks.release(token, outcomes.get(token, request.outcome))
        for reservation_id in [] if held is None else held.reservations:
            self._reservations.release(reservation_id)
        refunded = sum(self._report(usage, request.worker) for usage in request.usages)
        self.live.pop(request.bundle_id, None)
        return pb.ReleaseBundleResponse(
            already_released=held is None,
            engagements=[*before, *(entry for token in locks for entry in self._locks.released(token))],
            refunded=refunded,
        )

    def _check(self, request: Any, held: _Held | None, outcomes: dict[int, Any], locks: list[int]) -> None:
        own = set() if held is None else {*held.locks, *held.permits}
        for each in (*outcomes, *(usage.permit_id for usage in request.usages)):
            if each not in own and (each in self._locks.live or self._permits.is_open(each)):
                raise NotHolder("it is not the bundle's", reason="NOT_HOLDER", metadata={"id": str(each)})
        if set(locks) - outcomes.keys() and not request.outcome:
            message = "outcome is required: the bundle holds a lock."
            raise InvalidRequest(message, reason="INVALID_ENUM", metadata={"field": "outcome"})

    def _report(self, usage: pb.PermitUsage, worker: str) -> int:
        report = rate_limit_pb2.RecordUsageRequest(
            endpoint=usage.endpoint,
            worker=worker,
            permit_id=usage.permit_id,
            result=usage.result,
            status_code=usage.status_code,
        )
        return self._permits.record(report).refunded


def _locks_of(request: Any) -> Iterator[engagement_pb2.RequestLockRequest]:
    for claim in request.claims:
        if claim.HasField("lock"):
            lock = engagement_pb2.RequestLockRequest(
                item=claim.lock.item, kind=claim.lock.kind, worker=request.worker
            )
            yield _with_ttl(lock, claim.lock)


def _reservations_of(request: Any) -> Iterator[reservation_pb2.ReserveResourceRequest]:
    for claim in request.claims:
        if claim.HasField("reservation"):
            wanted = claim.reservation
            reservation = reservation_pb2.ReserveResourceRequest(
                type=wanted.type,
                resource_id=wanted.resource_id,
                units=wanted.units,
                worker=request.worker,
            )
            yield _with_ttl(reservation, wanted)


def _permits_of(request: Any) -> Iterator[rate_limit_pb2.CanMakeRequestRequest]:
    for claim in request.claims:
        if claim.HasField("permit"):
            yield rate_limit_pb2.CanMakeRequestRequest(
                endpoint=claim.permit.endpoint, permits=claim.permit.permits, worker=request.worker
            )


def _with_ttl(request: Any, claim: Any) -> Any:
    if claim.HasField("ttl"):
        request.ttl.CopyFrom(claim.ttl)
    return request
