"""Quotas: how much one namespace may have at once, so that fleets that share a daemon leave each other room.

Owns: what is counted, and the error. Rules: a quota is never exceeded. What is waited for counts with what is
held, for it will be held without being asked for again; a bundle counts by its members, and one more. What is
there when a quota is lowered stays, and nothing is added until there is room.
Must not know: what anything is asked for.
"""

from collections.abc import Sized

from coordd.core.commands import AcquireBundle, ScheduleRequest, WaitableCommand
from coordd.core.errors import ResourceExhausted
from coordd.core.limits import LEASES_MAX
from coordd.core.rules import QuotaRule
from coordd.core.views import QuotaView


class Quotas:
    """The quotas of one namespace over what is `live`.

    `wanted`: what those who wait will hold; theirs to count, whether there is a quota or not.
    """

    __slots__ = ("_live", "_rule", "wanted")

    def __init__(self, rule: QuotaRule, live: Sized) -> None:
        self._rule = rule
        self._live = live
        self.wanted = 0

    def check_leases(self, command: WaitableCommand | ScheduleRequest) -> None:
        """Check that what a command asks for may be held, too. Raises: ResourceExhausted."""
        _check("leases", len(self._live) + self.wanted + leases_of(command), self._rule.leases or LEASES_MAX)

    def check_waiters(self, count: int) -> None:
        """Check that so many may wait. Raises: ResourceExhausted."""
        if self._rule.waiters:
            _check("waiters", count, self._rule.waiters)

    def check_sessions(self, count: int) -> None:
        """Check that so many may have a session. Raises: ResourceExhausted."""
        if self._rule.sessions:
            _check("sessions", count, self._rule.sessions)

    def views(self, *, waiters: int, sessions: int) -> list[QuotaView]:
        """Return the quotas that are set, of so many waiters and sessions."""
        taken = (
            ("leases", len(self._live) + self.wanted, self._rule.leases),
            ("waiters", waiters, self._rule.waiters),
            ("sessions", sessions, self._rule.sessions),
        )
        return [QuotaView(name=name, used=used, limit=limit) for name, used, limit in taken if limit]


def leases_of(command: WaitableCommand | ScheduleRequest) -> int:
    """Return how much is held once a command is granted."""
    if isinstance(command, AcquireBundle):
        return 1 + len(command.locks) + len(command.reservations) + len(command.permits)
    return 1


def _check(quota: str, count: int, most: int) -> None:
    if count > most:
        raise ResourceExhausted(
            "QUOTA_EXCEEDED", f"There may be {most} {quota} at once, by the quota.", quota=quota, limit=most
        )
