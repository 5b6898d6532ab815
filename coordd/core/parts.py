"""The parts of the state machine, and which of them knows which others.

Must not know: what any of them decides.
"""

from typing import Any

from coordd.core.bundles import Bundles
from coordd.core.commands import AcquireBundle, RequestLock, ReserveResource, TakePermit
from coordd.core.decisions import Decisions
from coordd.core.escalations import Escalations
from coordd.core.ledger import Ledger
from coordd.core.locks import Locks
from coordd.core.overrides import Overrides
from coordd.core.preemption import Preemption
from coordd.core.queues import Queues
from coordd.core.rate_limits import RateLimits
from coordd.core.reservations import Reservations
from coordd.core.rules import Rules
from coordd.core.sessions import Sessions
from coordd.core.sharing import Sharing
from coordd.core.waits import Waits


class Parts:
    """The three components over one ledger and one wait queue, and what stands around them; all empty."""

    __slots__ = (
        "bundles",
        "decisions",
        "escalations",
        "ledger",
        "locks",
        "overrides",
        "preemption",
        "queues",
        "rate_limits",
        "reservations",
        "rules",
        "sessions",
        "sharing",
        "waits",
    )

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        ledger = self.ledger = Ledger(rules)
        queues = self.queues = Queues()
        self.sharing = Sharing(rules, ledger, queues)
        self.locks = Locks(rules, ledger, queues)
        self.reservations = Reservations(rules, ledger, queues, self.sharing)
        self.rate_limits = RateLimits(rules, ledger, queues, self.sharing)
        self.overrides = Overrides(self.rate_limits, self.reservations, ledger)
        self.bundles = Bundles(rules, ledger, self.locks, self.reservations, self.rate_limits)
        holders = {"lock": self.locks.holder, "resource": self.reservations.holder}
        self.escalations = Escalations(rules, ledger, holders)
        components: dict[type, Any] = {
            RequestLock: self.locks,
            ReserveResource: self.reservations,
            TakePermit: self.rate_limits,
            AcquireBundle: self.bundles,
        }
        # Mostly none, and arrivals are most of what there is to do.
        is_counting = self.rate_limits.counts_arrivals
        self.waits = Waits(
            rules,
            ledger,
            queues,
            components,
            arrivals={TakePermit: self.rate_limits, AcquireBundle: self.bundles} if is_counting else {},
            estimates={TakePermit: self.rate_limits},
            escalations=self.escalations,
        )
        self.preemption = Preemption(rules, ledger)
        self.decisions = Decisions(rules, self.waits, self.escalations, self.preemption)
        self.sessions = Sessions(
            rules, ledger, self.locks, self.reservations, self.waits, sharing=self.sharing
        )
