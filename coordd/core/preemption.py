"""How a lease is taken from its holder.

Owns: the telling and the taking. Rules: the holder is told, and has `preempt_grace` to give up what it holds;
what it reports then counts. It can renew until then, and no further. Then the lease is taken, and its token
is dead. A lease that its holder lets run out before is an ordinary lapse.
Must not know: why.
"""

from coordd.core.ledger import Ledger
from coordd.core.outcomes import Preempted
from coordd.core.records import Lock, Reservation, Table
from coordd.core.rules import Rules

Lease = Lock | Reservation


class Preemption:
    """Takes leases away."""

    __slots__ = ("_grace_ns", "_ledger", "_recovery_grace_ns")

    def __init__(self, rules: Rules, ledger: Ledger) -> None:
        self._grace_ns = rules.preempt_grace_ns
        self._recovery_grace_ns = rules.recovery_grace_ns
        self._ledger = ledger

    def begin(self, lease: Lease, now: int) -> None:
        """Tell a holder that its lease is taken; one that was told already has what is left of its grace."""
        if lease.preempt_at:
            return
        lease.preempt_at = now + self._grace_ns
        lease.expires_at = min(lease.expires_at, lease.preempt_at)
        ledger = self._ledger
        ledger.deadlines.not_after(lease, lease.expires_at)
        if isinstance(lease, Lock):
            ledger.changes.of[Table.LOCKS][lease.token] = lease
        else:
            ledger.changes.of[Table.RESERVATIONS][lease.id] = lease
        ledger.notices.append(Preempted(grant=lease, at=lease.preempt_at))

    def recover(self, lease: Lease, now: int) -> None:
        """Extend a lease that was stored: its holder could neither renew it nor give it up meanwhile."""
        lease.expires_at = max(lease.expires_at, now + self._recovery_grace_ns)
        if lease.preempt_at:
            lease.preempt_at = max(lease.preempt_at, now + self._grace_ns)
            lease.expires_at = min(lease.expires_at, lease.preempt_at)


def is_preemptible(lease: Lease, now: int) -> bool:
    """Whether a lease can be taken: it lives, and can be given up.

    Units of a refilling pool can't: they are used at once or not at all.
    """
    is_used_up = isinstance(lease, Reservation) and lease.is_refilling
    return lease.expires_at > now and not is_used_up


def is_taken(lease: Lease) -> bool:
    """Whether a lease that has run out was taken from its holder, rather than let lapse by it before."""
    return bool(lease.preempt_at) and lease.expires_at >= lease.preempt_at
