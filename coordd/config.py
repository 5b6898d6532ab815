"""Typed settings from `coordd.toml` and the environment.

Owns: every key with its default, unit, range and meaning (`docs/configuration.md` is made from here), and
what the keys may not say together. In the file lengths of time are strings with a unit; here they are ns, and
the name says so.
Rules: all problems are told at once, each with its key; nothing is guessed from a wrong value. So whether a
table agrees with the others is told once it is right in itself, and they are.
Must not know: the state machine beyond `Rules`, and what a setting makes the daemon do.
"""

import difflib
import itertools
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from coordd.core.limits import (
    DAY,
    HISTORY_NS_MAX,
    HOUR,
    MILLISECOND,
    MINUTE,
    NAME_BYTES_MAX,
    SECOND,
    SESSION_TTL_NS_MAX,
    SESSION_TTL_NS_MIN,
    TTL_NS_MAX,
    TTL_NS_MIN,
    UNITS_MAX,
    WAIT_NS_MAX,
    WAIT_NS_MIN,
    WINDOW_NS_MAX,
    WINDOW_NS_MIN,
    WINDOWS_PER_LIMIT_MAX,
)
from coordd.core.rules import (
    BORROW,
    CRITICAL,
    DENY,
    ESCALATE,
    HIGH,
    LOW,
    MEDIUM,
    WAIT,
    KindRule,
    LimitRule,
    PoolRule,
    Rules,
    TypeRule,
    contradiction,
)

__all__ = [
    "DEFAULT_KINDS",
    "DEFAULT_POOLS",
    "DEFAULT_TYPES",
    "ENVIRONMENT",
    "AgingSettings",
    "ConfigError",
    "EscalationSettings",
    "KindSettings",
    "Length",
    "LimitSettings",
    "LockSettings",
    "LogSettings",
    "PoolSettings",
    "RecoverySettings",
    "RequestSettings",
    "SchedulingSettings",
    "ServerSettings",
    "SessionSettings",
    "Settings",
    "SharingSettings",
    "Shown",
    "StoreSettings",
    "TypeSettings",
    "WaitSettings",
    "WorkerSettings",
    "format_length",
    "load",
    "parse_length",
    "section_model",
]

# Variable -> the key it overrides. Only what a deployment needs; an empty variable is as none.
ENVIRONMENT: Final = {
    "COORDD_ADDRESS": ("server", "address"),
    "COORDD_DATA_PATH": ("store", "path"),
    "COORDD_LOG_LEVEL": ("log", "level"),
}

# What exists if the file says nothing. A table of the same name in the file changes it key by key.
DEFAULT_KINDS: Final[dict[str, dict[str, Any]]] = {
    "quote": {"min_interval": "24h"},
    "reply": {"min_interval": "24h"},
    "like": {"min_interval": "24h"},
    "analysis": {},
}
DEFAULT_POOLS: Final[dict[str, dict[str, Any]]] = {
    "api_tweets": {"windows": {"1h": 50}},
    "api_requests": {"windows": {"15m": 900}},
    "content_pipeline": {"capacity": 100},
}
DEFAULT_TYPES: Final[dict[str, dict[str, Any]]] = {
    "content": {"pool": "content_pipeline"},
    "api_quota": {"pools": {"tweet": "api_tweets", "search": "api_requests", "fetch": "api_requests"}},
    "db_connection": {},
    "conversation": {},
    "memory": {},
    "cpu": {},
    "storage": {},
}

_PRIORITIES: Final = {"low": LOW, "medium": MEDIUM, "high": HIGH, "critical": CRITICAL}
_ON_CONFLICT: Final = {"wait": WAIT, "deny": DENY, "escalate": ESCALATE}
# As in the protos.
_DECISIONS: Final = {"grant": 1, "deny": 2, "preempt": 3, "wait": 4}

_UNITS: Final = {
    "d": DAY,
    "h": HOUR,
    "m": MINUTE,
    "s": SECOND,
    "ms": MILLISECOND,
}
_LENGTH: Final = re.compile(r"(?:[0-9]+(?:ms|d|h|m|s))+")
_PART: Final = re.compile(r"([0-9]+)(ms|d|h|m|s)")
_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_INPUT_CHARS_MAX: Final = 60


class ConfigError(Exception):
    """The configuration is refused. `problems`: one line each, with file (or variable), key and reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class _Problems(ValueError):
    """What several keys say together is wrong. Each problem names its key below the field that is checked."""

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{key}: {reason}" for key, reason in self.problems))

    @classmethod
    def raise_any(cls, problems: Iterable[tuple[str, str]]) -> None:
        """Raise the problems, if there is one."""
        if found := tuple(problems):
            raise cls(found)


# ---------------------------------------------------------------------- values


def parse_length(text: str) -> int:
    """Return ns of a length such as "250ms", "15m", "1h30m". Raises: ValueError with a hint."""
    if not _LENGTH.fullmatch(text):
        raise ValueError(
            f'{text!r} is not a length of time; write for instance "250ms", "30s", "1h30m" or "1d"'
        )
    return sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(text))


def format_length(length_ns: int) -> str:
    """Write ns as `parse_length` reads them; exact down to a millisecond."""
    parts = []
    for unit, unit_ns in _UNITS.items():
        count, length_ns = divmod(length_ns, unit_ns)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


class Length:
    """Marks an int as a length of time in ns, `low` to `high`, with a unit. Checks and documents it."""

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high

    def __str__(self) -> str:
        return f"{format_length(self.low)} .. {format_length(self.high)}"

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        """Tell pydantic to call `check`."""
        return core_schema.no_info_plain_validator_function(self.check)

    def check(self, value: object) -> int:
        """Return ns. Raises: ValueError if `value` is no length of time, or not within the bounds."""
        if not isinstance(value, str):
            raise ValueError(f'a length of time needs a unit, for instance "30s" or "15m"; this is {value!r}')
        length_ns = parse_length(value)
        if not self.low <= length_ns <= self.high:
            raise ValueError(f"{value} is outside {self}")
        return length_ns


def _check_name(name: str) -> str:
    if not 1 <= len(name.encode()) <= NAME_BYTES_MAX or not name.isprintable() or "/" in name:
        raise ValueError(f"a name is 1..{NAME_BYTES_MAX} bytes of printable text without '/'")
    return name


def _check_address(address: str) -> str:
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[1]) > 65_535:
        raise ValueError(f'{address!r} is not HOST:PORT, for instance "127.0.0.1:7651" or "[::1]:7651"')
    return address


def _check_path(path: object) -> object:
    if path == "":
        raise ValueError("is empty; it names the data file")
    if isinstance(path, str) and "\0" in path:
        raise ValueError("has a NUL in it")
    return path


def _check_distinct(windows: object) -> object:
    # Two spellings of one length ("60m", "1h") would otherwise silently become one entry.
    seen: dict[int, str] = {}
    for text in windows if isinstance(windows, dict) else ():
        if _LENGTH.fullmatch(text) and seen.setdefault(length_ns := parse_length(text), text) != text:
            raise ValueError(f"{seen[length_ns]!r} and {text!r} are the same window")
    return windows


def _check_windows(windows: dict[int, int]) -> dict[int, int]:
    if not 1 <= len(windows) <= WINDOWS_PER_LIMIT_MAX:
        raise ValueError(f"has {len(windows)} windows; 1..{WINDOWS_PER_LIMIT_MAX} are possible")
    if reason := contradiction(windows):
        raise ValueError(f"the windows contradict each other: {reason}")
    return dict(sorted(windows.items()))


class Shown:
    """Says in the documentation what a type does not say by itself. Pydantic ignores it."""

    def __init__(self, unit: str, bounds: str) -> None:
        self.unit = unit
        self.bounds = bounds


Name = Annotated[str, AfterValidator(_check_name)]
Address = Annotated[str, AfterValidator(_check_address), Shown("", "HOST:PORT; port 0 picks a free one")]
DataPath = Annotated[
    Path,
    Field(strict=False),
    BeforeValidator(_check_path),
    Shown("", "a file; relative to the working directory"),
]
Ttl = Annotated[int, Length(TTL_NS_MIN, TTL_NS_MAX)]
Grace = Annotated[int, Length(0, DAY)]
Boost = Annotated[int, Length(0, HISTORY_NS_MAX)]
Units = Annotated[int, Field(ge=1, le=UNITS_MAX)]
Windows = Annotated[
    dict[Annotated[int, Length(WINDOW_NS_MIN, WINDOW_NS_MAX)], Units],
    BeforeValidator(_check_distinct),
    AfterValidator(_check_windows),
    Shown(
        "length of time = count",
        f"1 .. {WINDOWS_PER_LIMIT_MAX} windows of {Length(WINDOW_NS_MIN, WINDOW_NS_MAX)}, "
        f"each 1 .. {UNITS_MAX}",
    ),
]


def _check_headroom(headroom: dict["HeadroomClass", float]) -> dict["HeadroomClass", float]:
    if sum(headroom.values()) >= 1:
        raise ValueError("keeps everything: its parts add up to 1 or more")
    return headroom


Interval = Annotated[int, Length(0, HISTORY_NS_MAX)]
HeadroomClass = Literal["medium", "high", "critical"]
Headroom = Annotated[
    dict[HeadroomClass, Annotated[float, Field(ge=0, lt=1)]],
    AfterValidator(_check_headroom),
    Shown("class = part", "0 .. below 1, in all below 1"),
]
Allocation = Literal["priority", "fair"]
Share = Literal["equal", "proportional", "dynamic"]
OnConflict = Literal["wait", "deny", "escalate"]

_ALLOCATION: Final = (
    "`priority`: by class and time of waiting. `fair`: among workers of the same class the next grant "
    "goes to the one that has the smallest share."
)
_SHARE: Final = (
    "With `fair`: `equal` parts, `proportional` to the workers' weights, or `dynamic`, which also weighs "
    "how urgent a worker's requests are."
)
_HEADROOM: Final = "Parts that only this class and those above may take, for instance `{ critical = 0.05 }`."
_ON_CONFLICT_TEXT: Final = (
    "What becomes of a request that conflicts with a holder and does not say: it waits, is refused, or waits "
    "while a coordination worker is asked."
)
_ESCALATE_AFTER: Final = "A coordination worker is asked about a wait that lasts so long. `0s`: never."


def _priorities(headroom: Mapping[HeadroomClass, float]) -> dict[int, float]:
    return {_PRIORITIES[name]: part for name, part in headroom.items()}


# ---------------------------------------------------------------------- sections


class _Section(BaseModel):
    """A table of the file. Strict: a wrong type is refused, not converted. `_ns` is ours, not the file's."""

    model_config = ConfigDict(
        alias_generator=lambda field: field.removesuffix("_ns"),
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        strict=True,
    )


class ServerSettings(_Section):
    """How the daemon is reached."""

    address: Address = Field(
        "127.0.0.1:7651",
        description="Where it listens. There is no TLS and no authentication in this version: who reaches "
        "the port may do anything, also what operators do. Keep it on loopback or a private network.",
    )
    max_message_bytes: Annotated[int, Field(ge=512 * 1024, le=64 * 1024 * 1024), Shown("bytes", "")] = Field(
        1024 * 1024,
        description="Longer messages are refused; the longest that can be right is below the least value.",
    )
    drain_timeout_ns: Annotated[int, Length(0, HOUR)] = Field(
        10 * SECOND, description="How long calls in progress may take to end when the daemon is told to stop."
    )


class StoreSettings(_Section):
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


class LogSettings(_Section):
    """What the daemon writes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level written."
    )
    format: Literal["console", "json"] = Field(
        "console", description="For people, or one JSON object a line."
    )


class LockSettings(_Section):
    """What a lock excludes others from."""

    exclusive: Literal["item", "item_and_kind"] = Field(
        "item",
        description="`item`: one holder per item. `item_and_kind`: one per item and kind of engagement.",
    )
    memory_ns: Annotated[int, Length(0, 31 * DAY)] = Field(
        24 * HOUR,
        description="How far back a bundle's condition `not_engaged` may look; so much history is in memory.",
    )


class KindSettings(_Section):
    """A kind of engagement."""

    enabled: bool = Field(default=True, description="`false` removes a built-in kind.")
    ttl_ns: Ttl = Field(15 * MINUTE, description="How long a lock is held unless its request says or renews.")
    lock_delay_ns: Grace = Field(
        15 * SECOND, description="How long an item rests after a lock on it ran out unreleased."
    )
    min_interval_ns: Annotated[int, Length(0, HISTORY_NS_MAX)] = Field(
        0,
        description="How soon an item may be engaged again; `0s`: at once. Of the built-in kinds see below.",
    )
    min_interval_after: dict[Name, Interval] = Field(
        {}, description="How soon after an engagement of another kind this one may follow: kind -> length."
    )
    quality_discount: float = Field(
        0.0,
        ge=0,
        le=1,
        description="After a success an interval is shortened by quality x this: at 0.5 a request of "
        "quality 1 waits half as long.",
    )
    on_conflict: OnConflict = Field("wait", description=_ON_CONFLICT_TEXT)
    escalate_after_ns: Annotated[int, Length(0, WAIT_NS_MAX)] = Field(0, description=_ESCALATE_AFTER)
    bypass_quality: float | None = Field(
        None,
        ge=0,
        le=1,
        description="A request of at least this quality may engage again within `min_interval` after a "
        "success. Absent: none may.",
    )

    def rule(self) -> KindRule:
        """Return what the state machine is told."""
        return KindRule(
            ttl_ns=self.ttl_ns,
            lock_delay_ns=self.lock_delay_ns,
            min_interval_ns=self.min_interval_ns,
            min_interval_after_ns=self.min_interval_after,
            bypass_quality=KindRule().bypass_quality if self.bypass_quality is None else self.bypass_quality,
            quality_discount=self.quality_discount,
            on_conflict=_ON_CONFLICT[self.on_conflict],
            escalate_after_ns=self.escalate_after_ns,
        )


class TypeSettings(_Section):
    """A type of resource: exclusive by id, and drawing on a pool where it has one."""

    ttl_ns: Ttl = Field(
        30 * MINUTE, description="How long a reservation is held unless its request says or renews."
    )
    pool: Name | Literal[""] = Field("", description="The pool that its units come from. Empty: none.")
    pools: dict[Name, Name] = Field(
        {}, description="Resource id -> the pool its units come from. Not together with `pool`."
    )
    on_conflict: OnConflict = Field("wait", description=_ON_CONFLICT_TEXT)
    escalate_after_ns: Annotated[int, Length(0, WAIT_NS_MAX)] = Field(0, description=_ESCALATE_AFTER)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pool and self.pools:
            raise ValueError("`pool` and `pools` exclude each other")
        return self

    def named_pools(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the name of each pool it refers to."""
        if self.pool:
            yield "pool", self.pool
        for resource_id, pool in self.pools.items():
            yield f"pools.{resource_id}", pool

    def rule(self) -> TypeRule:
        """Return what the state machine is told."""
        return TypeRule(
            ttl_ns=self.ttl_ns,
            pool=self.pool,
            pools=self.pools,
            on_conflict=_ON_CONFLICT[self.on_conflict],
            escalate_after_ns=self.escalate_after_ns,
        )


class PoolSettings(_Section):
    """A pool of units: `capacity` units that come back, or `windows` that refill."""

    enabled: bool = Field(default=True, description="`false` removes a built-in pool.")
    capacity: Units = Field(0, description="Units that are held and come back on release or expiry.")
    windows: Windows = Field(
        {}, description="Units within any such length of time; they come back by themselves."
    )
    use_within_ns: Ttl = Field(
        30 * SECOND, description="With `windows` only: units are to be used within this long, or not at all."
    )
    allocation: Allocation = Field("priority", description=_ALLOCATION)
    share: Share = Field("equal", description=_SHARE)
    headroom: Headroom = Field({}, description=_HEADROOM)
    capacity_min: Annotated[int, Field(ge=0, le=UNITS_MAX)] = Field(
        0,
        description="With `capacity_max` and `capacity`: the capacity adapts to how its workers fare, "
        "within these bounds. 0: it does not adapt.",
    )
    capacity_max: Annotated[int, Field(ge=0, le=UNITS_MAX)] = Field(0, description="See `capacity_min`.")
    latency_target_ns: Annotated[int, Length(0, HOUR)] = Field(
        0,
        description="Work that takes longer says that an adaptive pool is too large. `0s`: only overload "
        "does.",
    )
    decrease: float = Field(
        0.9,
        ge=0.1,
        lt=1,
        description="What part an adaptive pool's capacity is left with when it is too large.",
    )
    recovery_ns: Annotated[int, Length(SECOND, DAY)] = Field(
        MINUTE, description="Below `capacity` an adaptive pool gains one unit in so long by itself."
    )
    overflow: Literal["queue", "deny", "borrow"] = Field(
        "queue",
        description="What becomes of a request for units when none are free: it waits, is refused even "
        "if it would wait, or takes units of the pool `borrow_from`.",
    )
    borrow_from: Name | Literal[""] = Field("", description="With `borrow`: a pool with `capacity`.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.capacity and self.windows:
            raise ValueError("`capacity` and `windows` exclude each other")
        if not self.capacity and not self.windows:
            raise ValueError("needs either `capacity` or `windows`")
        if self.capacity and "use_within_ns" in self.model_fields_set:
            raise ValueError("`use_within` goes with `windows` only")
        _Problems.raise_any(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        bounds = (self.capacity_min, self.capacity_max)
        if any(bounds) and not 0 < self.capacity_min <= self.capacity <= self.capacity_max:
            yield "capacity_min", "needs 0 < capacity_min <= capacity <= capacity_max"
        if (self.overflow == BORROW) != bool(self.borrow_from):
            yield "borrow_from", 'goes together with `overflow = "borrow"`'
        if self.overflow == BORROW and not self.capacity:
            yield "overflow", "`borrow` is for pools with `capacity`"

    def rule(self) -> PoolRule:
        """Return what the state machine is told."""
        shared = {
            "is_fair": self.allocation == "fair",
            "share": self.share,
            "headroom": _priorities(self.headroom),
        }
        if not self.capacity:
            limit = LimitRule(windows=self.windows, use_within_ns=self.use_within_ns, **shared)  # type: ignore[arg-type]
            return PoolRule(limit=limit, overflow=self.overflow)
        return PoolRule(
            capacity=self.capacity,
            capacity_min=self.capacity_min,
            capacity_max=self.capacity_max,
            latency_target_ns=self.latency_target_ns,
            decrease=self.decrease,
            recovery_ns=self.recovery_ns,
            overflow=self.overflow,
            borrow_from=self.borrow_from,
            **shared,  # type: ignore[arg-type]
        )


class LimitSettings(_Section):
    """An upstream endpoint and what it allows."""

    windows: Windows = Field(
        description='Calls within any such length of time, for instance `{ "15m" = 180, "1h" = 720 }`.'
    )
    allocation: Allocation = Field("priority", description=_ALLOCATION)
    share: Share = Field("equal", description=_SHARE)
    headroom: Headroom = Field({}, description=_HEADROOM)
    forecast_headroom: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="The largest part of each window that low and medium classes leave to what higher "
        "classes are expected to ask for. 0: none.",
    )
    pace: Literal["asap", "even"] = Field(
        "asap",
        description="`asap`: calls are permitted as they are asked for. `even`: they are spread over the "
        "window; critical ones are not.",
    )
    credentials: list[Name] = Field(
        [],
        description="Where the fleet has several credentials, each with limits of its own: the endpoint "
        "then exists once for each, as `endpoint@credential`.",
    )
    backoff_ns: Annotated[int, Length(MILLISECOND, HOUR)] = Field(
        SECOND,
        description="How long a 429 without a time closes the endpoint for the whole fleet; doubled with "
        "each one in a row.",
    )
    backoff_max_ns: Annotated[int, Length(MILLISECOND, DAY)] = Field(
        15 * MINUTE, description="The longest such pause."
    )
    backoff_decay_ns: Annotated[int, Length(MILLISECOND, DAY)] = Field(
        MINUTE, description="One doubling is forgotten in so long, and one with each success."
    )
    reset_max_ns: Annotated[int, Length(SECOND, 31 * DAY)] = Field(
        DAY, description="A reset that upstream puts further ahead is taken as this, with an alert."
    )
    reset_form: Literal["auto", "epoch", "delta"] = Field(
        "auto",
        description="How upstream means `X-RateLimit-Reset`: as seconds since 1970, as seconds from now, "
        "or found out by its size.",
    )
    header_window_ns: Annotated[int, Length(0, WINDOW_NS_MAX)] = Field(
        0,
        description="The window that `X-RateLimit-*` headers speak of, one of `windows`. `0s`: the one "
        "that fits best.",
    )
    alert_after: Annotated[int, Field(ge=1, le=1000)] = Field(
        3, description="So many refusals in a row raise an alert."
    )
    use_within_ns: Ttl = Field(
        30 * SECOND,
        description="A permit is to be used within this long, or not at all; until it is settled it counts "
        "as used at the last moment.",
    )
    claim_window_ns: Ttl = Field(30 * SECOND, description="How long after its time a booking may be claimed.")

    def rule(self) -> LimitRule:
        """Return what the state machine is told."""
        return LimitRule(
            windows=self.windows,
            is_fair=self.allocation == "fair",
            share=self.share,
            headroom=_priorities(self.headroom),
            forecast_max=self.forecast_headroom,
            is_even=self.pace == "even",
            use_within_ns=self.use_within_ns,
            claim_window_ns=self.claim_window_ns,
            backoff_ns=self.backoff_ns,
            backoff_max_ns=self.backoff_max_ns,
            backoff_decay_ns=self.backoff_decay_ns,
            reset_max_ns=self.reset_max_ns,
            reset_form=self.reset_form,
            header_window_ns=self.header_window_ns,
            alert_after=self.alert_after,
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _Problems.raise_any(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        if self.header_window_ns and self.header_window_ns not in self.windows:
            yield "header_window", f"{format_length(self.header_window_ns)} is none of `windows`"
        if self.backoff_max_ns < self.backoff_ns:
            yield "backoff_max", "is shorter than `backoff`"
        if len(set(self.credentials)) < len(self.credentials):
            yield "credentials", "names one twice"


class AgingSettings(_Section):
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
        _Problems.raise_any(self._problems())
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
                yield higher, f"{format_length(higher_ns)} is not above {lower}'s {format_length(lower_ns)}"
            elif self.quality_ns >= step_ns:
                quality, step = format_length(self.quality_ns), format_length(step_ns)
                yield "quality", f"{quality} is not below the step from {lower} to {higher}, {step}"


class WaitSettings(_Section):
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


class RecoverySettings(_Section):
    """After a restart."""

    grace_ns: Grace = Field(
        30 * SECOND,
        description="Every live lease lasts at least this long from the start: no holder could renew it.",
    )


class RequestSettings(_Section):
    """Repeated requests."""

    memory_ns: Grace = Field(
        10 * MINUTE,
        description="How long a request_id is remembered after its grant has ended, so that a late copy of "
        "the request gets no second one.",
    )


class SchedulingSettings(_Section):
    """Bookings of future calls."""

    horizon_ns: Annotated[int, Length(SECOND, WINDOW_NS_MAX)] = Field(
        24 * HOUR, description="How far ahead a call can be booked."
    )


class WorkerSettings(_Section):
    """A worker, or a class of workers."""

    weight: float = Field(1.0, ge=0.001, le=1000, description="Its weight where shares are proportional.")


class SharingSettings(_Section):
    """Fair shares."""

    active_window_ns: Annotated[int, Length(SECOND, DAY)] = Field(
        5 * MINUTE, description="A worker without a session shares for so long after it last asked."
    )


class EscalationSettings(_Section):
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


class SessionSettings(_Section):
    """Sessions of workers."""

    ttl_ns: Annotated[int, Length(SESSION_TTL_NS_MIN, SESSION_TTL_NS_MAX)] = Field(
        30 * SECOND, description="A session ends so long after its last keepalive, unless it says otherwise."
    )


def _reaching(key: str, length_ns: int, info: ValidationInfo) -> Iterator[tuple[str, str]]:
    """Yield a problem if what is kept of the past is less than `length_ns`."""
    store: StoreSettings | None = info.data.get("store")
    if store is not None and length_ns > store.history_retention_ns:
        retention = format_length(store.history_retention_ns)
        yield (
            key,
            f"is longer than store.history_retention, {retention}: a restart would forget what it needs",
        )


def _check_kind(kind: KindSettings, info: ValidationInfo) -> KindSettings:
    if kind.enabled:
        _Problems.raise_any(
            itertools.chain(
                _reaching("min_interval", kind.min_interval_ns, info),
                _reaching("lock_delay", kind.lock_delay_ns, info),
                *(
                    _reaching(f"min_interval_after.{name}", length_ns, info)
                    for name, length_ns in kind.min_interval_after.items()
                ),
            )
        )
    return kind


def _check_locks(locks: LockSettings, info: ValidationInfo) -> LockSettings:
    _Problems.raise_any(_reaching("memory", locks.memory_ns, info))
    return locks


def _check_type(type_: TypeSettings, info: ValidationInfo) -> TypeSettings:
    if (pools := info.data.get("pools")) is not None:
        known = ", ".join(pools) or "none"
        _Problems.raise_any(
            (key, f"there is no pool {pool!r} (there are: {known})")
            for key, pool in type_.named_pools()
            if pool not in pools
        )
    return type_


def _check_requests(requests: RequestSettings, info: ValidationInfo) -> RequestSettings:
    _Problems.raise_any(_reaching("memory", requests.memory_ns, info))
    return requests


class Settings(_Section):
    """Everything that can be set."""

    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    log: LogSettings = LogSettings()
    locks: Annotated[LockSettings, AfterValidator(_check_locks)] = Field(
        LockSettings(), validate_default=True
    )
    # Each table by itself, so that one that is wrong hides nothing of the others.
    kinds: dict[Name, Annotated[KindSettings, AfterValidator(_check_kind)]] = Field({}, validate_default=True)
    # Before the types, which refer to them.
    pools: dict[Name, PoolSettings] = Field({}, validate_default=True)
    types: dict[Name, Annotated[TypeSettings, AfterValidator(_check_type)]] = Field({}, validate_default=True)
    limits: dict[Name, LimitSettings] = {}
    aging: AgingSettings = AgingSettings()
    waits: WaitSettings = WaitSettings()
    recovery: RecoverySettings = RecoverySettings()
    requests: Annotated[RequestSettings, AfterValidator(_check_requests)] = Field(
        RequestSettings(), validate_default=True
    )
    scheduling: SchedulingSettings = SchedulingSettings()
    sharing: SharingSettings = SharingSettings()
    workers: dict[Name, WorkerSettings] = {}
    worker_classes: dict[Name, WorkerSettings] = {}
    escalation: EscalationSettings = EscalationSettings()
    sessions: SessionSettings = SessionSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        _Problems.raise_any(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        for name, kind in self.kinds.items():
            for other in kind.min_interval_after.keys() - self.kinds.keys():
                yield f"kinds.{name}.min_interval_after.{other}", "there is no such kind"
        for name, pool in self.pools.items():
            if pool.borrow_from and not self._can_lend(pool.borrow_from, name):
                yield f"pools.{name}.borrow_from", "names no other pool with `capacity`"
        for name, limit in self.limits.items():
            for twice in {f"{name}@{credential}" for credential in limit.credentials} & self.limits.keys():
                yield f"limits.{name}.credentials", f"{twice} is a limit of its own, too"

    def _can_lend(self, name: str, to: str) -> bool:
        return name != to and name in self.pools and self.pools[name].capacity > 0

    @field_validator("kinds", mode="before")
    @classmethod
    def _merge_kinds(cls, given: object) -> object:
        return _merged(DEFAULT_KINDS, given)

    @field_validator("kinds")
    @classmethod
    def _drop_kinds(cls, kinds: dict[str, KindSettings]) -> dict[str, KindSettings]:
        return {name: kind for name, kind in kinds.items() if kind.enabled}

    @field_validator("pools", mode="before")
    @classmethod
    def _merge_pools(cls, given: object) -> object:
        return _merged(DEFAULT_POOLS, given, exclusive=("capacity", "windows"))

    @field_validator("pools")
    @classmethod
    def _drop_pools(cls, pools: dict[str, PoolSettings]) -> dict[str, PoolSettings]:
        return {name: pool for name, pool in pools.items() if pool.enabled}

    @field_validator("types", mode="before")
    @classmethod
    def _merge_types(cls, given: object, info: ValidationInfo) -> object:
        pools = info.data.get("pools", DEFAULT_POOLS)
        defaults = {name: _without_missing(table, pools) for name, table in DEFAULT_TYPES.items()}
        return _merged(defaults, given, exclusive=("pool", "pools"))

    def rules(self) -> Rules:
        """Return what the state machine is told."""
        aging = self.aging
        return Rules(
            kinds={name: kind.rule() for name, kind in self.kinds.items()},
            types={name: type_.rule() for name, type_ in self.types.items()},
            pools={name: pool.rule() for name, pool in self.pools.items()},
            limits={
                each: limit.rule()
                for name, limit in self.limits.items()
                for each in ([f"{name}@{credential}" for credential in limit.credentials] or [name])
            },
            is_exclusive_by_kind=self.locks.exclusive == "item_and_kind",
            boost_ns={LOW: 0, MEDIUM: aging.medium_ns, HIGH: aging.high_ns, CRITICAL: aging.critical_ns},
            quality_boost_ns=aging.quality_ns,
            resume_grace_ns=self.waits.resume_grace_ns,
            recovery_grace_ns=self.recovery.grace_ns,
            request_memory_ns=self.requests.memory_ns,
            schedule_horizon_ns=self.scheduling.horizon_ns,
            worker_weights={name: worker.weight for name, worker in self.workers.items()},
            worker_class_weights={name: worker.weight for name, worker in self.worker_classes.items()},
            active_window_ns=self.sharing.active_window_ns,
            fair_bound_ns=aging.fair_bound_ns,
            bundle_patience_ns=self.waits.bundle_patience_ns,
            is_shedding=self.waits.shed,
            engagement_memory_ns=self.locks.memory_ns,
            escalation_timeout_ns=self.escalation.timeout_ns,
            escalation_default=_DECISIONS[self.escalation.default],
            preempt_grace_ns=self.escalation.preempt_grace_ns,
            session_ttl_ns=self.sessions.ttl_ns,
        )


def _merged(
    defaults: Mapping[str, dict[str, Any]], given: object, *, exclusive: tuple[str, ...] = ()
) -> object:
    # Key by key, but of keys that exclude each other the file's one replaces all the defaults'.
    if not isinstance(given, dict):
        return given
    tables: dict[str, object] = dict(defaults)
    for name, table in given.items():
        if isinstance(table, dict):
            base = defaults.get(name, {})
            dropped = exclusive if table.keys() & set(exclusive) else ()
            tables[name] = {key: value for key, value in base.items() if key not in dropped} | table
        else:
            tables[name] = table
    return tables


def _without_missing(type_table: dict[str, Any], pools: Mapping[str, object]) -> dict[str, Any]:
    # A built-in type outlives a built-in pool that was removed; it then has none.
    table = dict(type_table)
    if table.get("pool") not in pools:
        table.pop("pool", None)
    if "pools" in table:
        table["pools"] = {key: pool for key, pool in table["pools"].items() if pool in pools}
    return table


# ---------------------------------------------------------------------- reading


def load(
    path: Path | None, environment: Mapping[str, str] = os.environ, *, changes: Iterable[str] = ()
) -> Settings:
    """Read the file (None: defaults), the environment over it, and changes over both.

    Args:   changes: each `KEY=VALUE` as a line of the file could be, with the whole key:
            `limits.post_tweet.windows.1h=400`.
    Raises: ConfigError with all problems.
    """
    data = {} if path is None else _read(path)
    overridden: dict[tuple[str, ...], str] = {}
    for variable, (section, key) in ENVIRONMENT.items():
        table = data.setdefault(section, {})
        if (value := environment.get(variable)) and isinstance(table, dict):
            table[key] = value
            overridden[section, key] = variable
    for change in changes:
        for location in _merge(data, _read_change(change)):
            overridden[location] = change
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_problem_lines(error, path, overridden)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror}"]) from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise ConfigError([f"{path}: is not TOML: {error}"]) from error


def _read_change(change: str) -> dict[str, Any]:
    key, is_given, value = change.partition("=")
    if not is_given:
        raise ConfigError([f"{change}: is no KEY=VALUE"])
    try:
        return tomllib.loads(f"{key}={value}")
    except ValueError as error:
        raise ConfigError(
            [f'{change}: is not TOML: {error}; a text needs quotes, as in pace="even"']
        ) from error


def _merge(data: dict[str, Any], change: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Put a change over `data`; yield where each of its values went."""
    for key, value in change.items():
        if value and isinstance(value, dict) and isinstance(data.get(key, {}), dict):
            for location in _merge(data.setdefault(key, {}), value):
                yield (key, *location)
        else:
            data[key] = value
            yield (key,)


def _source(location: tuple[str, ...], path: Path | None, overridden: Mapping[tuple[str, ...], str]) -> str:
    """Return what is to be named for a problem: the variable or change that has set it, or file and key."""
    parts = (location[:length] for length in range(len(location), 0, -1))
    setter = next((overridden[part] for part in parts if part in overridden), None)
    if setter is not None:
        return setter
    source = f"{path or 'defaults'}: {'.'.join(map(_key, location))}"
    # What a change has set within it may contradict the rest.
    within = dict.fromkeys(change for part, change in overridden.items() if part[: len(location)] == location)
    return f"{source} with {', '.join(within)}" if within else source


def _problem_lines(
    error: ValidationError, path: Path | None, overridden: Mapping[tuple[str, ...], str]
) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        location = tuple(str(part) for part in detail["loc"] if part != "[key]")
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, _Problems):
            for inner, reason in cause.problems:
                yield f"{_source((*location, *inner.split('.')), path, overridden)}: {reason}"
        else:
            yield f"{_source(location, path, overridden)}: {_reason(detail, location)}"


def _reason(detail: ErrorDetails, location: tuple[str, ...]) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key{_suggestion(location)}"
        case "missing":
            return "is required"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "must be a table"
        case "value_error":
            return str(detail["ctx"]["error"])
    shown = repr(detail["input"])[:_SHOWN_INPUT_CHARS_MAX]
    return f"{detail['msg'].removeprefix('Input ')}; it is {shown}"


def _suggestion(location: tuple[str, ...]) -> str:
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        if (field := model.model_fields.get(part)) is not None:
            model = section_model(field.annotation)
    keys = [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(location[-1], keys, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(keys)}"


def section_model(annotation: Any) -> type[BaseModel]:
    """Return the model of a field of `Settings`: of the section, or of each table in it."""
    while hasattr(annotation, "__args__"):  # of a dict, its values; of what is annotated, the thing itself
        annotation = annotation.__args__[-1]
    model: type[BaseModel] = annotation
    return model


def _key(part: str) -> str:
    return part if _BARE_KEY.fullmatch(part) else json.dumps(part, ensure_ascii=False)
