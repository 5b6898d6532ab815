"""Every metric there is: its name, its labels and what it means.

Owns: the names, by Prometheus's conventions (base units, `_total`). docs/metrics.md is generated from here,
and the alerts and the dashboard are checked against it.
Rules: labels name what the configuration names (namespaces, pools, endpoints, windows) or what the code does
(methods, codes, outcomes, reasons, classes), never items, workers or ids: there are as many series as
somebody has written down, however many workers come.
"""

from typing import Final

from coordd.core.limits import SECOND
from coordd.telemetry.instruments import Metric

# From 100 us, about what a commit to a fast disk takes; each some 2.5 times the one before.
_SHORT_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
# Waits last up to an hour; within a minute it matters how long.
_LONG_S: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Group:
    """Metrics of one subject, in the order in which they are documented."""

    def __init__(self, title: str, *labels: str) -> None:
        self.title = title
        self.metrics: list[Metric] = []
        self._labels = labels

    def counter(self, name: str, meaning: str, *labels: str) -> Metric:
        """Declare a number that only rises."""
        return self._add(
            Metric(name=f"coordd_{name}_total", kind="counter", help=meaning, labels=self._labels + labels)
        )

    def gauge(self, name: str, meaning: str, *labels: str, scale: int = 1) -> Metric:
        """Declare a number that rises and falls."""
        return self._add(
            Metric(
                name=f"coordd_{name}", kind="gauge", help=meaning, labels=self._labels + labels, scale=scale
            )
        )

    def seconds(self, name: str, meaning: str, *labels: str, bounds: tuple[float, ...]) -> Metric:
        """Declare a histogram of times that are counted in ns."""
        return self._add(
            Metric(
                name=f"coordd_{name}_seconds",
                kind="histogram",
                help=meaning,
                labels=self._labels + labels,
                bounds=bounds,
                scale=SECOND,
            )
        )

    def sizes(self, name: str, meaning: str) -> Metric:
        """Declare a histogram of counts."""
        return self._add(
            Metric(name=f"coordd_{name}", kind="histogram", help=meaning, labels=self._labels, bounds=_SIZES)
        )

    def _add(self, metric: Metric) -> Metric:
        self.metrics.append(metric)
        return metric


_daemon = Group("The daemon")
BUILD = _daemon.gauge("build_info", "1; what is running.", "version")
SERVING = _daemon.gauge("serving", "1 while the daemon's health is SERVING, else 0.")
LOOP_LAG = _daemon.seconds(
    "event_loop_lag",
    "How much later than it was due the event loop came to a task, four times a second.",
    bounds=_SHORT_S,
)

TASKS = _daemon.gauge(
    "tasks",
    "Tasks of the event loop: some 3,000 that wait for calls, and two for each under way.",
)

_calls = Group("Calls", "service", "method")
CALLS = _calls.counter("calls", "Calls that have ended, by gRPC status.", "code")
CALLS_UNDER_WAY = _calls.gauge("calls_under_way", "Calls that have begun and not ended, streams included.")
CALL_TIME = _calls.seconds(
    "call_duration", "How long a unary call took within the daemon, its commit included.", bounds=_SHORT_S
)
_admission = Group("Calls")
ADMITTED = _admission.gauge(
    "admission_in_progress_calls", "Calls that begin something, or ask, and are admitted and not answered."
)
ADMISSION_LIMIT = _admission.gauge(
    "admission_limit_calls",
    "How many of them there may be; it falls while calls have to wait for each other.",
)
ADMISSION_REFUSALS = _admission.counter(
    "admission_refusals",
    "Calls refused for overload. Those refused at the door are in no other metric of calls.",
)
_failures = Group("Calls")
FAILURES = _failures.counter(
    "call_failures",
    "Calls that have failed, by gRPC status and the reason in their ErrorInfo.",
    "code",
    "reason",
)

_decisions = Group("Decisions", "namespace")
DECISIONS = _decisions.counter(
    "decisions",
    "Commands that were answered, by what was decided. Those that failed: coordd_call_failures_total.",
    "command",
    "outcome",
)
ACQUISITION = _decisions.seconds(
    "acquisition",
    "From asking for a lock, reservation, permit or bundle to its durable grant, at once or after a wait.",
    "component",
    bounds=_LONG_S,
)
REFUSALS = _decisions.counter(
    "refusals",
    "Requests that were refused, by reason; `when`: at_once, or after_waiting.",
    "component",
    "reason",
    "when",
)
EXPIRIES = _decisions.counter(
    "expiries", "Leases, permits, bookings and bundles whose time ran out unreturned.", "component"
)

_conflicts = Group("Waits and conflicts", "namespace")
WAITERS = _conflicts.gauge(
    "waiters", "Who waits, those who are away included, by what for and class.", "component", "class"
)
WAITERS_AWAY = _conflicts.gauge("waiters_away", "Those of them whose stream is gone and who may come back.")
QUEUE_WAIT = _conflicts.seconds(
    "queue_wait",
    "How long somebody waited until the wait was granted or refused on its stream.",
    "component",
    "class",
    "outcome",
    bounds=_LONG_S,
)
CONFLICTS = _conflicts.counter(
    "conflicts",
    "Requests that could not be granted at once since others hold, or wait for, what they want.",
    "component",
    "reason",
)
CONFLICT_TIME = _conflicts.seconds(
    "conflict_resolution",
    "How long a wait that began with a conflict lasted; `resolution`: granted, or why not.",
    "component",
    "resolution",
    bounds=_LONG_S,
)
ESCALATIONS = _conflicts.gauge("escalations", "Escalations that wait for somebody's decision.")
ESCALATION_TIME = _conflicts.seconds(
    "escalation",
    "From opening an escalation to its end, by decision; none: its wait ended before.",
    "decision",
    bounds=_LONG_S,
)
PREEMPTIONS = _conflicts.counter(
    "preemptions",
    "Leases taken from their holders; `stage`: announced, and taken if it was still held.",
    "stage",
)

_holdings = Group("Holdings", "namespace")
LOCKS = _holdings.gauge("locks", "Live locks.")
RESERVATIONS = _holdings.gauge("reservations", "Live reservations.")
PERMITS = _holdings.gauge("permits", "Permits that may be used and are not reported yet.")
BOOKINGS = _holdings.gauge("bookings", "Bookings that are not claimed yet.")
BUNDLES = _holdings.gauge("bundles", "Live bundles.")
SESSIONS = _holdings.gauge("sessions", "Open sessions of workers.")
SESSION_EXPIRIES = _holdings.counter("session_expiries", "Sessions that ran out: their workers are gone.")

_endpoints = Group("Endpoints", "namespace", "endpoint")
WINDOW_USED = _endpoints.gauge("endpoint_window_used_permits", "Charges in a rolling window.", "window")
WINDOW_LIMIT = _endpoints.gauge("endpoint_window_limit_permits", "What the window allows now.", "window")
UTILISATION = _endpoints.gauge(
    "endpoint_utilisation_ratio", "Charges over limit of the fullest window, which is the one that binds."
)
REMAINING = _endpoints.gauge(
    "endpoint_remaining_permits", "Permits that could be taken now; 0 behind a gate."
)
HEALTH = _endpoints.gauge("endpoint_health", "1 for what holds: healthy, warning, critical.", "health")
GATE = _endpoints.gauge("endpoint_gate", "1 for what holds: open, closed, probing.", "state")
GATE_CLOSURES = _endpoints.counter("endpoint_gate_closures", "How often the gate was closed, or for longer.")
QUEUED = _endpoints.gauge("endpoint_queued", "Who waits for permits of it.")
ENDPOINT_BOOKINGS = _endpoints.gauge("endpoint_bookings", "Calls of it that are booked.")
ACTIVE_WORKERS = _endpoints.gauge("endpoint_active_workers", "Workers that share it or have charges in it.")
UPSTREAM_REFUSALS = _endpoints.counter(
    "endpoint_upstream_429s", "Calls that upstream has answered with 429, as reported since the start."
)
MALFORMED = _endpoints.counter("endpoint_malformed_headers", "Headers of upstream that could not be read.")
SCHEDULING_ERROR = _endpoints.gauge(
    "endpoint_scheduling_error_seconds",
    "Mean of |actual - promised| over waits and bookings, a new one counting an eighth.",
    scale=SECOND,
)

_pools = Group("Pools", "namespace", "pool")
POOL_USED = _pools.gauge("pool_used_units", "Units held; where they refill, charges in the fullest window.")
POOL_CAPACITY = _pools.gauge("pool_capacity_units", "Units there are now.")
POOL_QUEUED = _pools.gauge("pool_queued", "Who waits for units of it.")

_store = Group("Store", "namespace")
COMMIT_TIME = _store.seconds("commit_duration", "How long a commit took.", bounds=_SHORT_S)
COMMIT_COMMANDS = _store.sizes("commit_commands", "Commands that a commit made durable.")
COMMIT_RECORDS = _store.sizes("commit_records", "Records that a commit wrote or deleted.")
STORE_BYTES = _store.gauge("store_bytes", "Size of the data file and of its log.", "file")
DRAINING = _store.gauge("draining", "1 while nothing new is granted, else 0.")
FAILED = _store.gauge(
    "store_failed",
    "1 where the file could not be opened, or once a commit has failed: nothing is answered there.",
)

GROUPS: Final = (
    _daemon,
    _calls,
    _failures,
    _admission,
    _decisions,
    _conflicts,
    _holdings,
    _endpoints,
    _pools,
    _store,
)
METRICS: Final = {metric.name: metric for group in GROUPS for metric in group.metrics}
