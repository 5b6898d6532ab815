"""Bundles: several claims granted together or not at all.

Owns: which grants were taken together, for as long as any of them lives. Rules: a bundle holds nothing while
it waits. Claims are looked at in one order, whatever order they were sent in: conditions, locks,
reservations, permits; the first that blocks is told, but one for which waiting is no use goes before all. Its
members are ordinary locks, reservations and permits, and may be released, renewed and reported singly; the
bundle ends with the last of them.
Must not know: how anything is granted; the components do.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from coordd.core.claims import Blocked, Component
from coordd.core.commands import (
    AcquireBundle,
    NotEngaged,
    RecordUsage,
    ReleaseBundle,
    ReleaseLock,
    ReleaseResource,
    RenewBundle,
    RenewLock,
    RenewReservation,
)
from coordd.core.errors import InvalidArgument, OutOfRange
from coordd.core.ledger import Ledger, lease_lost, not_holder
from coordd.core.lengths import spell_length
from coordd.core.locks import Locks, unknown_kind
from coordd.core.outcomes import BundleReleased, Reason, Renewed, grant_id
from coordd.core.queues import QueueKey, Rank
from coordd.core.rate_limits import RateLimits
from coordd.core.records import Bundle, Engagement, Lock, Permit, Reservation, Table
from coordd.core.reservations import Reservations
from coordd.core.rules import Rules

Member = Lock | Reservation | Permit


class Bundles:
    """The live bundles."""

    __slots__ = ("_changed", "_kinds", "_ledger", "_locks", "_rate_limits", "_reservations", "_undo", "count")

    def __init__(
        self, rules: Rules, ledger: Ledger, locks: Locks, reservations: Reservations, rate_limits: RateLimits
    ) -> None:
        self._kinds = rules.kinds
        self._ledger = ledger
        self._locks = locks
        self._reservations = reservations
        self._rate_limits = rate_limits
        self._undo: dict[type, Any] = {
            Lock: locks.undo,
            Reservation: reservations.undo,
            Permit: rate_limits.undo,
        }
        self._changed = ledger.changes.of[Table.BUNDLES]
        # Live bundles.
        self.count = 0

    # -- Component -------------------------------------------------------------------------------------------

    def check(self, command: AcquireBundle, rank: Rank, now: int) -> Blocked | None:
        """See `Component.check`. `retry_at` is the latest of all that is known."""
        self._check_form(command)
        conditions = (self._check_condition(condition, now) for condition in command.not_engaged)
        parts = tuple(component.check(claim, rank, now) for component, claim in self._parts(command))
        blocks = [blocked for blocked in (*conditions, *parts) if blocked is not None]
        if not blocks:
            lends = self._reservations.borrowers
            return self._reservations.blocked_together(command.reservations) if lends else None
        told = next((blocked for blocked in blocks if not blocked.key), blocks[0])
        return replace(told, retry_at=max(blocked.retry_at for blocked in blocks), parts=parts)

    def take(self, command: AcquireBundle, now: int) -> Bundle:
        """See `Component.take`."""
        held: tuple[Any, ...] = tuple(component.take(claim, now) for component, claim in self._parts(command))
        bundle = Bundle(
            id=self._ledger.next_id(),
            worker=command.worker,
            granted_at=now,
            members=_members(held),
            claims=_claims(command),
            request_id=command.request_id,
            held=held,
        )
        self._hold(bundle)
        self._changed[bundle.id] = bundle
        return bundle

    def validate(self, command: AcquireBundle) -> None:
        """See `Component.validate`."""
        for component, claim in self._parts(command):
            component.validate(claim)
        self._check_form(command)

    def keys(self, command: AcquireBundle) -> tuple[QueueKey, ...]:
        """See `Component.keys`."""
        return tuple(key for component, claim in self._parts(command) for key in component.keys(claim))

    def units(self, command: AcquireBundle, key: QueueKey) -> int:
        """See `Component.units`."""
        return next(
            component.units(claim, key)
            for component, claim in self._parts(command)
            if key in component.keys(claim)
        )

    def estimate(self, command: AcquireBundle, rank: Rank, blocked: Blocked, now: int) -> int | None:
        """See `Component.estimate`: the longest wait of all its claims; None if any is unknown."""
        waits_ns = [0]
        for component, claim, part in self._blocked_parts(command, blocked):
            wait_ns = component.estimate(claim, rank, part, now)
            if wait_ns is None:
                return None
            waits_ns.append(wait_ns)
        return max(waits_ns)

    def least_wait(self, command: AcquireBundle, rank: Rank, blocked: Blocked, now: int) -> int:
        """See `Component.least_wait`: the longest of all that are known."""
        waits_ns = [0]
        for component, claim, part in self._blocked_parts(command, blocked):
            waits_ns.append(component.least_wait(claim, rank, part, now) or 0)
        return max(waits_ns)

    def is_for(self, command: AcquireBundle, grant: object) -> bool:
        """See `Component.is_for`."""
        if isinstance(grant, AcquireBundle):
            return _claims(grant) == _claims(command)
        return isinstance(grant, Bundle) and grant.claims == _claims(command)

    # -- Arrivals --------------------------------------------------------------------------------------------

    def arrived(self, command: AcquireBundle, now: int) -> None:
        """See `Arrivals.arrived`: its permits are demand like any other."""
        for claim in command.permits:
            self._rate_limits.arrived(claim, now)

    # -- commands --------------------------------------------------------------------------------------------

    def renew(self, command: RenewBundle, now: int) -> Renewed:
        """Hold every lease of a bundle for its own time to live from now."""
        bundle = self._own(command.id, command.worker)
        if bundle is None:
            raise lease_lost("bundle", command.id)
        check_leases(bundle, now)
        for member in bundle.held:
            if isinstance(member, Lock):
                self._locks.renew(RenewLock(item=member.item, worker=member.worker, token=member.token), now)
            elif isinstance(member, Reservation) and not member.is_refilling:
                self._reservations.renew(RenewReservation(id=member.id, worker=member.worker), now)
        return Renewed(grant=bundle)

    def release(self, command: ReleaseBundle, now: int) -> BundleReleased:
        """Give all of a bundle back that is still held.

        A permit that is not reported stays open, as if it had been taken alone.
        """
        bundle = self._own(command.id, command.worker)
        held = tuple(member for member in bundle.held if _is_held(member, now)) if bundle is not None else ()
        self._check_release(command, bundle, held)
        engagements = tuple(self._release(command, held, now))
        recorded = [self._rate_limits.record_usage(usage, now) for usage in command.usages]
        if bundle is not None:
            self._forget(bundle, now)
        return BundleReleased(
            bundle=bundle, engagements=engagements, refunded=sum(usage.refunded for usage in recorded)
        )

    def force(self, bundle: Bundle, now: int) -> None:
        """End a bundle because an operator says so; its holder may have acted. Permits stay charged."""
        for member in bundle.held:
            if isinstance(member, Lock):
                self._locks.force(member, now)
            elif isinstance(member, Reservation):
                self._reservations.force(member, now)
        self._forget(bundle, now)

    def undo(self, bundle: Bundle, now: int) -> None:
        """Take back a grant nobody heard of."""
        held = bundle.held
        self._drop(bundle)
        for member in held:
            self._undo[member.__class__](member, now)

    def part(self, now: int, *, is_given_back: bool) -> list[Bundle]:
        """Let go of members that have ended; return the bundles that have ended with them.

        `is_given_back`: their holder has ended them; else they are lost, which a renewal is to be told.
        """
        ended = []
        for member_id in self._ledger.parted:
            bundle = self._ledger.members.pop(member_id, None)
            if bundle is not None and not self._keep(bundle, member_id, is_given_back=is_given_back):
                self._forget(bundle, now)
                ended.append(bundle)
        self._ledger.parted.clear()
        return ended

    # -- recovery --------------------------------------------------------------------------------------------

    def load(self, bundle: Bundle) -> bool:
        """Take a bundle in as it was stored, if any of its members lives; say whether one does."""
        ids = msgspec.json.decode(bundle.members, type=list[int])
        live = map(self._ledger.live.get, ids)
        bundle.held = tuple(member for member in live if isinstance(member, Lock | Reservation | Permit))
        if not bundle.held:
            self._changed[bundle.id] = None
            return False
        self._hold(bundle)
        return True

    # --------------------------------------------------------------------------------------------------------

    def _parts(self, command: AcquireBundle) -> Iterator[tuple[Component[Any], Any]]:
        """Yield each claim with its component, in the one order in which they are looked at and taken."""
        for component, claims in (
            (self._locks, command.locks),
            (self._reservations, command.reservations),
            (self._rate_limits, command.permits),
        ):
            for claim in claims:
                yield component, claim

    def _blocked_parts(
        self, command: AcquireBundle, blocked: Blocked
    ) -> Iterator[tuple[Component[Any], Any, Blocked]]:
        """Yield each claim that `blocked`, which `check` has said, found blocked, and by what."""
        for (component, claim), part in zip(self._parts(command), blocked.parts, strict=False):
            if part is not None:
                yield component, claim, part

    def _check_form(self, command: AcquireBundle) -> None:
        for condition in command.not_engaged:
            self._check_known(condition)
        keys = self.keys(command)
        if len(set(keys)) < len(keys):
            [(key, _)] = Counter(keys).most_common(1)
            subject = "/".join(key[1:]).partition("\0")[0]
            raise InvalidArgument(
                "DUPLICATE_CLAIM", f"Two claims are on {subject}; make them one.", subject=subject
            )

    def _check_known(self, condition: NotEngaged) -> None:
        for kind in condition.kinds:
            if kind not in self._kinds:
                raise unknown_kind(kind, self._kinds)
        memory_ns = self._locks.engaged.keep_ns
        if condition.within_ns > memory_ns:
            raise OutOfRange(
                "BEYOND_HISTORY",
                f"A condition can look back {spell_length(memory_ns)}, not "
                f"{spell_length(condition.within_ns)}.",
                within_ns=condition.within_ns,
                memory_ns=memory_ns,
            )

    def _check_condition(self, condition: NotEngaged, now: int) -> Blocked | None:
        latest = self._locks.engaged.latest(condition.item, condition.kinds, now - condition.within_ns)
        if latest is None:
            return None
        return Blocked(
            reason=Reason.RECENTLY_ENGAGED,
            subject=condition.item,
            retry_at=latest.at + condition.within_ns,
            holder=latest.worker,
        )

    def _own(self, id: int, worker: str) -> Bundle | None:
        bundle = self._ledger.live.get(id)
        if not isinstance(bundle, Bundle):
            self._ledger.ended(id, "bundle")
            return None
        if bundle.worker != worker:
            raise not_holder("bundle", id, worker)
        return bundle

    def _check_release(self, command: ReleaseBundle, bundle: Bundle | None, held: tuple[Member, ...]) -> None:
        """Check all that could fail, before anything is given back."""
        for member_id in (*command.outcomes, *(usage.id for usage in command.usages)):
            self._check_member(member_id, bundle, command.worker)
        for usage in command.usages:
            self._check_usage(usage)
        unsaid = [m for m in held if isinstance(m, Lock) and m.token not in command.outcomes]
        if unsaid and not command.outcome:
            raise InvalidArgument(
                "INVALID_ENUM", "outcome is required: the bundle holds a lock.", field="outcome"
            )

    def _check_member(self, id: int, bundle: Bundle | None, worker: str) -> None:
        self._ledger.ended(id, "bundle's member")
        is_of_it = bundle is not None and self._ledger.members.get(id) is bundle
        if id in self._ledger.live and not is_of_it:
            raise not_holder("bundle's member", id, worker)

    def _check_usage(self, usage: RecordUsage) -> None:
        self._rate_limits.limit(usage.endpoint)
        permit = self._ledger.live.get(usage.id)
        if permit is not None and getattr(permit, "endpoint", "") != usage.endpoint:
            raise not_holder("permit", usage.id, usage.worker)

    def _release(self, command: ReleaseBundle, held: Iterable[Member], now: int) -> Iterator[Engagement]:
        """Give locks and reservations back; yield what history now says of the locks."""
        for token in command.outcomes:
            known = self._locks.released(token, command.worker, now)
            if known is not None:
                yield known
        for member in held:
            if isinstance(member, Lock):
                outcome = command.outcomes.get(member.token, command.outcome)
                release = ReleaseLock(
                    item=member.item, worker=member.worker, token=member.token, outcome=outcome
                )
                yield self._locks.release(release, now).engagement
            elif isinstance(member, Reservation):
                back = ReleaseResource(
                    id=member.id, worker=member.worker, result=command.result, latency_ns=command.latency_ns
                )
                self._reservations.release(back, now)

    def _hold(self, bundle: Bundle) -> None:
        self.count += 1
        self._ledger.live[bundle.id] = bundle
        for member in bundle.held:
            self._ledger.members[grant_id(member)] = bundle

    def _keep(self, bundle: Bundle, id: int, *, is_given_back: bool) -> bool:
        """Let one member go; say whether any is left."""
        gone = next(member for member in bundle.held if grant_id(member) == id)
        bundle.held = tuple(member for member in bundle.held if member is not gone)
        if bundle.held and (is_given_back or not _is_lease(gone)):
            ids = msgspec.json.decode(bundle.members, type=list[int])
            bundle.members = msgspec.json.encode([other for other in ids if other != id]).decode()
            self._changed[bundle.id] = bundle
        return bool(bundle.held)

    def _drop(self, bundle: Bundle) -> None:
        """End a bundle; what is left of its members lives on alone."""
        self.count -= 1
        del self._ledger.live[bundle.id]
        self._changed[bundle.id] = None
        for member in bundle.held:
            self._ledger.members.pop(grant_id(member), None)

    def _forget(self, bundle: Bundle, now: int) -> None:
        self._drop(bundle)
        self._ledger.end_request(bundle.worker, bundle.request_id, now)


def _members(held: Iterable[Member]) -> str:
    return msgspec.json.encode([grant_id(member) for member in held]).decode()


def _claims(command: AcquireBundle) -> str:
    """Return what a bundle takes, as it is kept: the same for every copy of the same request."""
    claims = (
        [(lock.item, lock.kind) for lock in command.locks],
        [(claim.type, claim.resource_id, claim.units or 1) for claim in command.reservations],
        [(permit.endpoint, permit.count) for permit in command.permits],
    )
    return msgspec.json.encode(claims).decode()


def _is_lease(member: Member) -> bool:
    return not isinstance(member, Permit) and not (isinstance(member, Reservation) and member.is_refilling)


def _is_held(member: Member, now: int) -> bool:
    # One whose end has come but was not ticked yet has ended: order decides, not the length of a tick.
    return (member.use_by if isinstance(member, Permit) else member.expires_at) > now


def check_leases(bundle: Bundle, now: int) -> None:
    """Check that no lease of a bundle has been lost. Raises: FailedPrecondition (LEASE_LOST)."""
    held = {grant_id(member): member for member in bundle.held}
    for member_id in msgspec.json.decode(bundle.members, type=list[int]):
        member = held.get(member_id)
        if member is None or (_is_lease(member) and not _is_held(member, now)):
            raise lease_lost("bundle's lease", member_id)
