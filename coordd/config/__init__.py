"""Typed settings from `coordd.toml` and the environment.

Owns: every key with its default, unit, range and meaning (`docs/configuration.md` is made from here), and
what the keys may not say together. In the file lengths of time are strings with a unit; here they are ns, and
the name says so.
Must not know: the state machine beyond `Rules`, and what a setting makes the daemon do.
"""

from coordd.config.access import AuditSettings, IdentitySettings, TlsSettings
from coordd.config.differences import Difference, differences
from coordd.config.problems import ConfigError
from coordd.config.reading import ENVIRONMENT, OF_A_NAMESPACE, load, section_model
from coordd.config.sections import (
    AgingSettings,
    EscalationSettings,
    LockSettings,
    LogSettings,
    NamespaceSettings,
    QuotaSettings,
    RecoverySettings,
    RequestSettings,
    SchedulingSettings,
    ServerSettings,
    SessionSettings,
    SharingSettings,
    StoreSettings,
    WaitSettings,
    WorkerSettings,
)
from coordd.config.settings import DEFAULT_KINDS, DEFAULT_POOLS, DEFAULT_TYPES, Settings
from coordd.config.spelling import NOTHING, spell_setting
from coordd.config.things import KindSettings, LimitSettings, PoolSettings, TypeSettings
from coordd.config.values import DEFAULT_NAMESPACE, UNIX, Length, Shown, parse_length

__all__ = [
    "DEFAULT_KINDS",
    "DEFAULT_NAMESPACE",
    "DEFAULT_POOLS",
    "DEFAULT_TYPES",
    "ENVIRONMENT",
    "NOTHING",
    "OF_A_NAMESPACE",
    "UNIX",
    "AgingSettings",
    "AuditSettings",
    "ConfigError",
    "Difference",
    "EscalationSettings",
    "IdentitySettings",
    "KindSettings",
    "Length",
    "LimitSettings",
    "LockSettings",
    "LogSettings",
    "NamespaceSettings",
    "PoolSettings",
    "QuotaSettings",
    "RecoverySettings",
    "RequestSettings",
    "SchedulingSettings",
    "ServerSettings",
    "SessionSettings",
    "Settings",
    "SharingSettings",
    "Shown",
    "StoreSettings",
    "TlsSettings",
    "TypeSettings",
    "WaitSettings",
    "WorkerSettings",
    "differences",
    "load",
    "parse_length",
    "section_model",
    "spell_setting",
]
