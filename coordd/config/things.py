"""The tables of what is coordinated: kinds of engagement, types of resource, pools, limits.

Owns: their keys, each with default, unit, range and meaning, and what the keys of one table may not say
together.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from coordd.config.problems import Problems
from coordd.config.values import (
    ALLOCATION_TEXT,
    ESCALATE_AFTER_TEXT,
    HEADROOM_TEXT,
    ON_CONFLICT,
    ON_CONFLICT_TEXT,
    SHARE_TEXT,
    Allocation,
    Grace,
    Headroom,
    Interval,
    Length,
    Name,
    OnConflict,
    Section,
    Share,
    Ttl,
    Units,
    Windows,
    priorities,
)
from coordd.core.lengths import spell_length
from coordd.core.limits import (
    DAY,
    HISTORY_NS_MAX,
    HOUR,
    MILLISECOND,
    MINUTE,
    SECOND,
    UNITS_MAX,
    WAIT_NS_MAX,
    WINDOW_NS_MAX,
)
from coordd.core.rules import BORROW, KindRule, LimitRule, PoolRule, TypeRule


class KindSettings(Section):
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
    on_conflict: OnConflict = Field("wait", description=ON_CONFLICT_TEXT)
    escalate_after_ns: Annotated[int, Length(0, WAIT_NS_MAX)] = Field(0, description=ESCALATE_AFTER_TEXT)
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
            on_conflict=ON_CONFLICT[self.on_conflict],
            escalate_after_ns=self.escalate_after_ns,
        )


class TypeSettings(Section):
    """A type of resource: exclusive by id, and drawing on a pool where it has one."""

    ttl_ns: Ttl = Field(
        30 * MINUTE, description="How long a reservation is held unless its request says or renews."
    )
    pool: Name | Literal[""] = Field("", description="The pool that its units come from. Empty: none.")
    pools: dict[Name, Name] = Field(
        {}, description="Resource id -> the pool its units come from. Not together with `pool`."
    )
    on_conflict: OnConflict = Field("wait", description=ON_CONFLICT_TEXT)
    escalate_after_ns: Annotated[int, Length(0, WAIT_NS_MAX)] = Field(0, description=ESCALATE_AFTER_TEXT)

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
            on_conflict=ON_CONFLICT[self.on_conflict],
            escalate_after_ns=self.escalate_after_ns,
        )


class PoolSettings(Section):
    """A pool of units: `capacity` units that come back, or `windows` that refill."""

    enabled: bool = Field(default=True, description="`false` removes a built-in pool.")
    capacity: Units = Field(0, description="Units that are held and come back on release or expiry.")
    windows: Windows = Field(
        {}, description="Units within any such length of time; they come back by themselves."
    )
    use_within_ns: Ttl = Field(
        30 * SECOND, description="With `windows` only: units are to be used within this long, or not at all."
    )
    allocation: Allocation = Field("priority", description=ALLOCATION_TEXT)
    share: Share = Field("equal", description=SHARE_TEXT)
    headroom: Headroom = Field({}, description=HEADROOM_TEXT)
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
        description="What part an adaptive pool's capacity is left with when it is too large; a unit less at "
        "least.",
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
        Problems.raise_any(self._problems())
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
            "headroom": priorities(self.headroom),
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


class LimitSettings(Section):
    """An upstream endpoint and what it allows."""

    windows: Windows = Field(
        description='Calls within any such length of time, for instance `{ "15m" = 180, "1h" = 720 }`.'
    )
    allocation: Allocation = Field("priority", description=ALLOCATION_TEXT)
    share: Share = Field("equal", description=SHARE_TEXT)
    headroom: Headroom = Field({}, description=HEADROOM_TEXT)
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
            headroom=priorities(self.headroom),
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
        Problems.raise_any(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        if self.header_window_ns and self.header_window_ns not in self.windows:
            yield "header_window", f"{spell_length(self.header_window_ns)} is none of `windows`"
        if self.backoff_max_ns < self.backoff_ns:
            yield "backoff_max", "is shorter than `backoff`"
        if len(set(self.credentials)) < len(self.credentials):
            yield "credentials", "names one twice"
