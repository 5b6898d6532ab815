"""One endpoint's limit: its windows, its open permits, and whatever else is known of it.

Must not know: any decision; those of gates, headers, bookings and permits are taken by modules of their own.
"""

from collections.abc import Mapping

from coordd.core.allocations import Allocations
from coordd.core.errors import InvalidArgument
from coordd.core.forecasts import Forecasts
from coordd.core.headroom import headroom_of
from coordd.core.ledger import Ledger
from coordd.core.lessons import Lessons
from coordd.core.pacing import Pace
from coordd.core.promises import Promises
from coordd.core.queues import QueueKey, Queues
from coordd.core.records import Gate, Permit
from coordd.core.rules import LimitRule
from coordd.core.shared_windows import SharedWindows, windows_of
from coordd.core.sharing import Sharing
from coordd.core.window_blocks import WindowBlocks
from coordd.core.windows import Kept


class Limit:
    """One endpoint: its rule, its windows, and its open permits in the order in which their time passes.

    `headroom` None: no class must leave anything to others. `forecasts` None: nor to what they are expected
    to want. `pace` None: calls are permitted as they come. `shares` None: workers do not share it.
    """

    __slots__ = (
        "allocations",
        "blocks",
        "forecasts",
        "gate",
        "headroom",
        "in_flight",
        "key",
        "lessons",
        "name",
        "open",
        "pace",
        "promises",
        "rule",
        "scheduled",
        "shares",
        "violations",
        "windows",
    )

    def __init__(self, name: str, rule: LimitRule, ledger: Ledger, queues: Queues, sharing: Sharing) -> None:
        self.name = name
        self.rule = rule
        self.windows = windows_of(f"limit/{name}", rule, ledger.changes.cells)
        self.key: QueueKey = ("limit", name)
        self.forecasts = (
            Forecasts(self.windows.name, self.key, list(rule.windows), ledger)
            if rule.forecast_max > 0
            else None
        )
        self.headroom = headroom_of(rule, self.forecasts)
        self.pace = Pace(self.windows) if rule.is_even else None
        self.blocks = WindowBlocks(self.key, self.windows, queues, headroom=self.headroom, pace=self.pace)
        self.promises = Promises()
        self.shares = sharing.order(self.key, rule, self.headroom, SharedWindows(self.windows))
        # As last told, where many share.
        self.allocations: Allocations | None = None
        self.open: dict[int, Permit] = {}
        # Calls of the open permits.
        self.in_flight = 0
        # None: upstream has never refused a call.
        self.gate: Gate | None = None
        self.lessons = Lessons()
        self.violations = 0
        # Due when the oldest open permit's time passes.
        self.scheduled = 0

    def kept_at(self, at: int, priority: int, count: int, now: int) -> Kept | None:
        """Return what a class that wants `count` at the instant `at` must leave of each window."""
        if self.headroom is None:
            return None
        return self.headroom.kept(priority, self.windows, now, count, at)


def limit_of(limits: Mapping[str, Limit], endpoint: str) -> Limit:
    """Return an endpoint's limit. Raises: InvalidArgument (UNKNOWN_ENDPOINT)."""
    limit = limits.get(endpoint)
    if limit is None:
        raise InvalidArgument(
            "UNKNOWN_ENDPOINT",
            f"The endpoint {endpoint!r} is not configured; there are: {', '.join(limits)}.",
            endpoint=endpoint,
        )
    return limit
