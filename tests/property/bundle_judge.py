"""What must be true of bundles, judged by brute force from what was asked and what was told.

Shares the vocabulary with coordd.core and not a line of its reasoning: it knows who holds what and who waits
since when, in lists, and adds up anew each time. It does not say which answer is right, but it knows wrong
ones: a part granted without the rest, more held than there is, a refusal without a reason, somebody left
waiting though all is free, something taken that was set aside.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from coordd.core.commands import AcquireBundle, RequestLock, ReserveResource, TakePermit
from coordd.core.outcomes import grant_id
from coordd.core.records import Bundle, Lock, Permit, Reservation
from coordd.core.rules import Rules

BUCKETS = 500
Key = tuple[str, str]
Needs = dict[Key, int]


@dataclass
class Held:
    """A live lock, reservation or permit."""

    id: int
    needs: Needs
    worker: str
    ends_at: int
    record: Any
    bundle: int = 0


@dataclass
class Waiting:
    """Somebody who waits."""

    id: int
    command: Any
    order: int
    since: int
    is_away: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        return (self.order, self.id)


@dataclass
class Judge:
    """Everything as it was told."""

    rules: Rules
    live: dict[int, Held] = field(default_factory=dict)
    waiting: dict[int, Waiting] = field(default_factory=dict)
    # (endpoint, count, charged at, granted at, permit)
    charges: list[list[Any]] = field(default_factory=list)
    # (item, at) of what counts.
    engaged: list[tuple[str, int]] = field(default_factory=list)

    # -- what is needed, and what there is -------------------------------------------------------------------

    def claims(self, command: Any) -> list[Any]:
        if isinstance(command, AcquireBundle):
            return [*command.locks, *command.reservations, *command.permits]
        return [command]

    def needs(self, command: Any) -> Needs:
        """Everything that a command needs, and how much of it."""
        needs: Needs = {}
        for claim in self.claims(command):
            if isinstance(claim, RequestLock):
                needs[("lock", claim.item)] = 1
            elif isinstance(claim, TakePermit):
                needs[("limit", claim.endpoint)] = claim.count
            else:
                if claim.resource_id:
                    needs[("resource", claim.resource_id)] = 1
                pool = self.rules.types[claim.type].pool
                if pool:
                    needs[("pool", pool)] = claim.units or 1
        return needs

    def free(self, key: Key, now: int) -> int:
        """How much of a thing is free."""
        sort, name = key
        if sort == "limit":
            return min(
                limit - self.level(name, length, now)
                for length, limit in self.rules.limits[name].windows.items()
            )
        total = self.rules.pools[name].capacity if sort == "pool" else 1
        return total - sum(held.needs.get(key, 0) for held in self.live.values())

    def level(self, endpoint: str, length: int, now: int) -> int:
        width = -(-length // BUCKETS)
        return sum(
            count
            for of, count, at, _, _ in self.charges
            if of == endpoint and at // width + BUCKETS >= now // width
        )

    def broken_condition(self, command: Any, now: int) -> bool:
        return isinstance(command, AcquireBundle) and any(
            item == condition.item and at > now - condition.within_ns
            for condition in command.not_engaged
            for item, at in self.engaged
        )

    def order(self, command: Any, now: int) -> int:
        return now - self.rules.boost_ns[command.priority]

    def present(self) -> list[Waiting]:
        there = [waiting for waiting in self.waiting.values() if not waiting.is_away]
        return sorted(there, key=lambda waiting: waiting.rank)

    def impatient(self, rank: tuple[int, int], now: int) -> Iterable[Waiting]:
        """Bundles that go before `rank`, are there, and have been patient for long enough."""
        return (
            waiting
            for waiting in self.present()
            if isinstance(waiting.command, AcquireBundle)
            and waiting.rank < rank
            and waiting.since + self.rules.bundle_patience_ns <= now
        )

    def is_free(self, command: Any, now: int, ahead: Iterable[Waiting] = ()) -> bool:
        """Whether all that a command needs is free beside all that those `ahead` want."""
        wanted = [self.needs(waiting.command) for waiting in ahead]
        return not self.broken_condition(command, now) and all(
            self.free(key, now) - sum(needs.get(key, 0) for needs in wanted) >= units
            for key, units in self.needs(command).items()
        )

    # -- verdicts --------------------------------------------------------------------------------------------

    def judge_grant(self, command: Any, grant: Any, rank: tuple[int, int], now: int) -> None:
        """All of it, nothing that another has, and nothing that is set aside for somebody who goes before."""
        members = grant.held if isinstance(grant, Bundle) else (grant,)
        claims = self.claims(command)
        sorts = {RequestLock: Lock, ReserveResource: Reservation, TakePermit: Permit}
        assert [type(member) for member in members] == [sorts[type(claim)] for claim in claims], "a part"
        assert self.is_free(command, now), f"{command} was granted what is not free"
        impatient = list(self.impatient(rank, now))
        assert self.is_free(command, now, impatient), f"{command} took what is set aside for {impatient}"
        for member, claim in zip(members, claims, strict=True):
            ends_at = member.use_by if isinstance(member, Permit) else member.expires_at
            name, needs = grant_id(member), self.needs(claim)
            self.live[name] = Held(name, needs, member.worker, ends_at, member)
            if isinstance(grant, Bundle):
                self.live[name].bundle = grant.id
            if isinstance(member, Permit):
                self.charges.append([member.endpoint, member.count, member.use_by, now, member.id])
                self.audit(member.endpoint, now)

    def audit(self, endpoint: str, now: int) -> None:
        """However late each call arrives, upstream never counts more than its limit."""
        for length, limit in self.rules.limits[endpoint].windows.items():
            arrivals = sum(
                count for of, count, at, _, _ in self.charges if of == endpoint and at > now - length
            )
            assert arrivals <= limit

    def judge_refusal(self, command: Any, rank: tuple[int, int], now: int) -> None:
        """Somebody has what it needs, or goes before it."""
        ahead = [waiting for waiting in self.present() if waiting.rank < rank]
        assert not self.is_free(command, now, ahead), f"{command} was refused though all is free"

    def judge_rest(self, now: int) -> None:
        """Nobody waits for what is free beside all that those before him want."""
        ahead: list[Waiting] = []
        for waiting in self.present():
            assert not self.broken_condition(waiting.command, now), f"waits in vain: {waiting}"
            assert not self.is_free(waiting.command, now, ahead), f"left behind: {waiting}"
            ahead.append(waiting)

    def bundles(self) -> set[int]:
        return {held.bundle for held in self.live.values() if held.bundle}

    # -- what has happened -----------------------------------------------------------------------------------

    def end(self, name: int, *, now: int, counts: bool = False) -> None:
        """Something is over; `counts`: and its item was acted on."""
        held = self.live.pop(name)
        if counts:
            self.engaged.append((held.record.item, now))

    def settle(self, name: int, now: int, *, is_sent: bool) -> None:
        for charge in self.charges:
            if charge[4] == name:
                charge[1:3] = [charge[1] if is_sent else 0, now]

    def undo(self, name: int) -> None:
        """A grant nobody heard of was never given."""
        self.live.pop(name)
        self.charges = [charge for charge in self.charges if charge[4] != name]
