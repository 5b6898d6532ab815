"""The tables of how the daemon works: where it listens and stores, how it lets wait, share and recover.

Owns: their keys, each with default, unit, range and meaning, and what the keys of one table may not say
together.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from coordd.config.problems import Problems
from coordd.config.values import (
    Address,
    Boost,
    DataPath,
    Grace,
    Length,
    NamespaceFile,
    OptionalAddress,
    Quota,
    Section,
    Shown,
    SocketMode,
    is_local,
)
from coordd.core.lengths import spell_length
from coordd.core.limits import (
    CALLS_IN_PROGRESS_MAX,
    DAY,
    HISTORY_NS_MAX,
    HOUR,
    MINUTE,
    SECOND,
    SESSION_TTL_NS_MAX,
    SESSION_TTL_NS_MIN,
    WAIT_NS_MAX,
    WAIT_NS_MIN,
    WINDOW_NS_MAX,
)


class ServerSettings(Section):
    """How the daemon is reached."""

    address: Address = Field(
        "127.0.0.1:7651",
        description="Where it listens. Without `[tls]` only on loopback or a Unix socket, unless "
        "`insecure`; without `[identities]` whoever reaches it may do anything, also what operators do.",
    )
    socket_mode: SocketMode = Field(
        "0600", description="Of a Unix socket: who on this machine may connect, as file permissions."
    )
    insecure: bool = Field(
        default=False,
        description="Whether it may listen without TLS where other machines reach it: everything, also "
        "tokens, can then be read and changed on the way. For networks that encrypt by themselves.",
    )
    max_message_bytes: Annotated[int, Field(ge=512 * 1024, le=64 * 1024 * 1024), Shown("bytes", "")] = Field(
        1024 * 1024,
        description="Longer messages are refused; the longest that can be right is below the least value.",
    )
    max_calls: Annotated[int, Field(ge=1, le=CALLS_IN_PROGRESS_MAX), Shown("calls", "")] = Field(
        1_000,
        description="So many calls that begin something or ask may be in progress at once, waits in a "
        "queue aside; further ones are refused at once with OVERLOADED. While calls wait for each other for "
        "more than 50 ms it is less. Renewals, releases, reports and what operators do are always taken on.",
    )
    drain_timeout_ns: Annotated[int, Length(0, HOUR)] = Field(
        10 * SECOND, description="How long calls in progress may take to end when the daemon is told to stop."
    )


class NamespaceSettings(Section):
    """Another fleet's world in the same daemon, with rules, limits and a data file of its own.

    Calls name it in their metadata, `coordd-namespace`; those that name none are for the main file's,
    `default`. A name is 1 .. 64 of `a-z`, `0-9`, `-` and `_`. Its file has the tables of the main one
    but those of the process, as `[server]`, `[log]` and this. Its `[store] path` is `NAME.db` beside the main
    data file, if it says none.
    """

    file: NamespaceFile = Field(description="Where the rules of this namespace are.")


class StoreSettings(Section):
    """Where the daemon keeps what must survive it."""

    path: DataPath = Field(
        Path("var/coordd.db"),
        description="The data file. It and its directory are made where they are missing.",
    )
    history_retention_ns: Annotated[int, Length(HOUR, HISTORY_NS_MAX)] = Field(
        90 * DAY,
        description="Engagements older than this are forgotten. At least the longest `min_interval` and "
        "`lock_delay` of any kind, and `[requests] memory`.",
    )


class LogSettings(Section):
    """What the daemon writes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level written."
    )
    format: Literal["console", "json"] = Field(
        "console", description="For people, or one JSON object a line."
    )

    slow_call_ns: Annotated[int, Length(0, HOUR)] = Field(
        SECOND,
        description="A unary call that takes longer is written as a warning; `0s`: none is. It waits for the "
        "disk and for whatever the event loop does before, and nothing else.",
    )
    slow_commit_ns: Annotated[int, Length(0, HOUR)] = Field(
        SECOND, description="A commit that takes longer is written as a warning; `0s`: none is."
    )


class MetricsSettings(Section):
    """Metrics for Prometheus, by HTTP."""

    address: OptionalAddress = Field(
        "",
        description="Where `/metrics` is. Off unless given: a fixed port would stop a second daemon on the "
        "machine, and it is one more door.",
    )
    insecure: bool = Field(
        default=False,
        description="Whether `address` may be other than loopback: whoever reaches it reads the names of "
        "pools and endpoints and how full they are; there is no TLS and no authentication on it.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.address and not self.insecure and not is_local(self.address):
            hint = "is not loopback: everybody there could read the metrics; `insecure = true` allows it"
            Problems.raise_any([("address", hint)])
        return self


class TraceSettings(Section):
    """Traces by OpenTelemetry."""

    otlp: bool = Field(
        default=False,
        description="Whether calls, decisions and commits are traced. Needs the extra `coordd[otel]`; where "
        "the spans go, and how many, the standard variables say: `OTEL_EXPORTER_OTLP_ENDPOINT`, "
        "`OTEL_TRACES_SAMPLER` and their kin.",
    )


class LockSettings(Section):
    """What a lock excludes others from."""

    exclusive: Literal["item", "item_and_kind"] = Field(
        "item",
        description="`item`: one holder per item. `item_and_kind`: one per item and kind of engagement.",
    )
    memory_ns: Annotated[int, Length(0, 31 * DAY)] = Field(
        24 * HOUR,
        description="How far back a bundle's condition `not_engaged` may look; so much history is in memory.",
    )


class AgingSettings(Section):
    """How long a waiter of one class must have waited to go before a fresh one of a higher class.

    Each is a head start over LOW; the difference of two is that time for their classes.
    """

    medium_ns: Boost = Field(MINUTE, description="Head start of MEDIUM over LOW.")
    high_ns: Boost = Field(2 * MINUTE, description="Head start of HIGH over LOW; above `medium`.")
    critical_ns: Boost = Field(365 * DAY, description="Head start of CRITICAL over LOW; above `high`.")
    quality_ns: Boost = Field(
        30 * SECOND,
        description="Head start of quality 1 over quality 0 within a class; below each step between classes.",
    )
    fair_bound_ns: Annotated[int, Length(SECOND, DAY)] = Field(
        2 * MINUTE,
        description="In a fair queue a worker that waits and was given nothing for so long goes first, "
        "whatever its share.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        Problems.raise_any(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        steps = [
            ("low", 0),
            ("medium", self.medium_ns),
            ("high", self.high_ns),
            ("critical", self.critical_ns),
        ]
        for (lower, lower_ns), (higher, higher_ns) in itertools.pairwise(steps):
            step_ns = higher_ns - lower_ns
            if step_ns <= 0:
                yield higher, f"{spell_length(higher_ns)} is not above {lower}'s {spell_length(lower_ns)}"
            elif self.quality_ns >= step_ns:
                quality, step = spell_length(self.quality_ns), spell_length(step_ns)
                yield "quality", f"{quality} is not below the step from {lower} to {higher}, {step}"


class WaitSettings(Section):
    """Waits that the server holds."""

    default_timeout_ns: Annotated[int, Length(WAIT_NS_MIN, WAIT_NS_MAX)] = Field(
        5 * MINUTE, description="How long a request waits that does not say."
    )
    resume_grace_ns: Grace = Field(
        30 * SECOND,
        description="How long a waiter's place is kept after its stream broke, if it had a request_id.",
    )
    shed: bool = Field(
        default=True,
        description="Whether a wait that is expected to last longer than its own timeout is refused at once.",
    )
    bundle_patience_ns: Grace = Field(
        10 * SECOND,
        description="A bundle that has waited so long has what it needs set aside; before, smaller "
        "requests may go first.",
    )


class RecoverySettings(Section):
    """After a restart."""

    grace_ns: Grace = Field(
        30 * SECOND,
        description="Every live lease lasts at least this long from the start: no holder could renew it.",
    )


class RequestSettings(Section):
    """Repeated requests."""

    memory_ns: Grace = Field(
        10 * MINUTE,
        description="How long a request_id is remembered after its grant has ended, so that a late copy of "
        "the request gets no second one.",
    )


class SchedulingSettings(Section):
    """Bookings of future calls."""

    horizon_ns: Annotated[int, Length(SECOND, WINDOW_NS_MAX)] = Field(
        24 * HOUR, description="How far ahead a call can be booked."
    )


class WorkerSettings(Section):
    """A worker, or a class of workers."""

    weight: float = Field(1.0, ge=0.001, le=1000, description="Its weight where shares are proportional.")


class SharingSettings(Section):
    """Fair shares."""

    active_window_ns: Annotated[int, Length(SECOND, DAY)] = Field(
        5 * MINUTE, description="A worker without a session shares for so long after it last asked."
    )


class EscalationSettings(Section):
    """Conflicts that a coordination worker decides."""

    timeout_ns: Annotated[int, Length(SECOND, DAY)] = Field(
        MINUTE, description="How long there is to decide; then the default holds."
    )
    default: Literal["grant", "deny", "preempt", "wait"] = Field(
        "wait", description="What holds where nobody decides."
    )
    preempt_grace_ns: Grace = Field(
        5 * SECOND, description="How long a holder that is to be deprived has to give up by itself."
    )


class QuotaSettings(Section):
    """How much of the daemon a namespace may have, so that fleets which share one leave each other room.

    0 is none: as much as there is room for. A call beyond a quota is refused with RESOURCE_EXHAUSTED.
    """

    leases: Quota = Field(
        0,
        description="Locks, reservations, permits, bookings and bundles that are held or waited for at once.",
    )
    waiters: Quota = Field(0, description="Requests that wait at once.")
    sessions: Quota = Field(0, description="Workers that have a session at once.")
    calls: Quota = Field(
        0,
        description="Calls under way at once, waits too; what gives back, keeps or settles something does "
        "not count, and neither do sessions and what operators do.",
    )
    calls_per_second: Quota = Field(
        0, description="Such calls a second, begun evenly; a second's worth may come at once."
    )


class SessionSettings(Section):
    """Sessions of workers."""

    ttl_ns: Annotated[int, Length(SESSION_TTL_NS_MIN, SESSION_TTL_NS_MAX)] = Field(
        30 * SECOND, description="A session ends so long after its last keepalive, unless it says otherwise."
    )
