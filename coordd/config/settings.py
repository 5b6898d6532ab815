"""Everything that can be set, and what its tables may not say together.

Owns: what exists if the file says nothing. Rule: whether a table agrees with the others is told once it is
right in itself, and they are.
Must not know: the state machine beyond `Rules`, and what a setting makes the daemon do.
"""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from coordd.access import Directory
from coordd.config.access import (
    AuditSettings,
    IdentitySettings,
    TlsSettings,
    directory,
    identity_problems,
)
from coordd.config.problems import Problems
from coordd.config.sections import (
    AgingSettings,
    EscalationSettings,
    LockSettings,
    LogSettings,
    MetricsSettings,
    NamespaceSettings,
    QuotaSettings,
    RecoverySettings,
    RequestSettings,
    SchedulingSettings,
    ServerSettings,
    SessionSettings,
    SharingSettings,
    StoreSettings,
    TraceSettings,
    WaitSettings,
    WorkerSettings,
)
from coordd.config.things import KindSettings, LimitSettings, PoolSettings, TypeSettings
from coordd.config.values import DEFAULT_NAMESPACE, Name, NamespaceName, Section, is_local
from coordd.core.lengths import spell_length
from coordd.core.limits import NAMESPACES_MAX
from coordd.core.rules import CRITICAL, HIGH, LOW, MEDIUM, QuotaRule, Rules

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

OPEN_ADDRESS: Final = (
    "is reached from other machines, and there is no [tls] certificate; listen on loopback or unix:/PATH, "
    "or say [server] insecure = true"
)

# As in the protos.
_DECISIONS: Final = {"grant": 1, "deny": 2, "preempt": 3, "wait": 4}


def _reaching(key: str, length_ns: int, info: ValidationInfo) -> Iterator[tuple[str, str]]:
    """Yield a problem if what is kept of the past is less than `length_ns`."""
    store: StoreSettings | None = info.data.get("store")
    if store is not None and length_ns > store.history_retention_ns:
        retention = spell_length(store.history_retention_ns)
        yield (
            key,
            f"is longer than store.history_retention, {retention}: a restart would forget what it needs",
        )


def _check_kind(kind: KindSettings, info: ValidationInfo) -> KindSettings:
    if kind.enabled:
        Problems.raise_any(
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
    Problems.raise_any(_reaching("memory", locks.memory_ns, info))
    return locks


def _check_type(type_: TypeSettings, info: ValidationInfo) -> TypeSettings:
    if (pools := info.data.get("pools")) is not None:
        known = ", ".join(pools) or "none"
        Problems.raise_any(
            (key, f"there is no pool {pool!r} (there are: {known})")
            for key, pool in type_.named_pools()
            if pool not in pools
        )
    return type_


def _check_requests(requests: RequestSettings, info: ValidationInfo) -> RequestSettings:
    Problems.raise_any(_reaching("memory", requests.memory_ns, info))
    return requests


class Settings(Section):
    """Everything that can be set."""

    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TraceSettings = TraceSettings()
    locks: Annotated[LockSettings, AfterValidator(_check_locks)] = Field(
        LockSettings(), validate_default=True
    )
    # Each table by itself, so that one that is wrong hides nothing of the others.
    kinds: dict[Name, Annotated[KindSettings, AfterValidator(_check_kind)]] = Field({}, validate_default=True)
    # Before the types, which refer to them.
    pools: dict[Name, PoolSettings] = Field({}, validate_default=True)
    types: dict[Name, Annotated[TypeSettings, AfterValidator(_check_type)]] = Field({}, validate_default=True)
    limits: dict[Name, LimitSettings] = Field({})
    aging: AgingSettings = AgingSettings()
    waits: WaitSettings = WaitSettings()
    recovery: RecoverySettings = RecoverySettings()
    requests: Annotated[RequestSettings, AfterValidator(_check_requests)] = Field(
        RequestSettings(), validate_default=True
    )
    scheduling: SchedulingSettings = SchedulingSettings()
    sharing: SharingSettings = SharingSettings()
    workers: dict[Name, WorkerSettings] = Field({})
    worker_classes: dict[Name, WorkerSettings] = Field({})
    escalation: EscalationSettings = EscalationSettings()
    sessions: SessionSettings = SessionSettings()
    quotas: QuotaSettings = QuotaSettings()
    tls: TlsSettings = TlsSettings()
    identities: dict[Name, IdentitySettings] = Field({})
    audit: AuditSettings = AuditSettings()
    namespaces: dict[NamespaceName, NamespaceSettings] = Field({}, max_length=NAMESPACES_MAX)
    # What their files say.
    _worlds: dict[str, "Settings"] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        """Take in what the namespaces' files say: `context`, from `load`."""
        self._worlds = dict(context or {})

    @property
    def worlds(self) -> Mapping[str, "Settings"]:
        """Return the settings of every namespace by name, this one's first."""
        return {DEFAULT_NAMESPACE: self, **self._worlds}

    @model_validator(mode="after")
    def _check(self) -> Self:
        Problems.raise_any(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from self._rule_problems()
        yield from (
            (f"identities.{key}", why)
            for key, why in identity_problems(
                self.identities, self.tls, {DEFAULT_NAMESPACE, *self.namespaces}
            )
        )
        if not (is_local(self.server.address) or self.tls.certificate or self.server.insecure):
            yield "server.address", OPEN_ADDRESS

    def _rule_problems(self) -> Iterator[tuple[str, str]]:
        for name, kind in self.kinds.items():
            for other in kind.min_interval_after.keys() - self.kinds.keys():
                yield f"kinds.{name}.min_interval_after.{other}", "there is no such kind"
        for name, pool in self.pools.items():
            if pool.borrow_from and not self._can_lend(pool.borrow_from, name):
                yield f"pools.{name}.borrow_from", "names no other pool with `capacity`"
        for name, limit in self.limits.items():
            for twice in {f"{name}@{credential}" for credential in limit.credentials} & self.limits.keys():
                yield f"limits.{name}.credentials", f"{twice} is a limit of its own, too"
        yield from self._shared_files()

    def _shared_files(self) -> Iterator[tuple[str, str]]:
        owners: dict[Path, str] = {}
        for name, world in self.worlds.items():
            owner = owners.setdefault(world.store.path.resolve(), name)
            if owner != name:
                yield f"namespaces.{name}.file", f"its data file is that of namespace {owner!r}, too"

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

    def directory(self) -> Directory:
        """Return everybody who is known."""
        return directory(self.identities)

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
            quotas=QuotaRule(
                leases=self.quotas.leases, waiters=self.quotas.waiters, sessions=self.quotas.sessions
            ),
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
