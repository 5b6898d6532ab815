"""How two configurations differ, setting by setting, in words for the log, and which of it takes a restart.

Rule: of who may call nothing is shown but that it differs.
"""

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct
from pydantic import BaseModel

from coordd.config.reading import OF_A_NAMESPACE
from coordd.config.settings import Settings
from coordd.config.spelling import spell_setting
from coordd.config.values import DEFAULT_NAMESPACE, Length

_NONE: Final = "-"
_NOT_SHOWN: Final = "(not shown)"
_NOT_SHOWN_SECTION: Final = "identities"
# What a running daemon takes over; all else is of the process: its port, its files, its log's form.
_LIVE_SECTIONS: Final = (OF_A_NAMESPACE - {"store"}) | {_NOT_SHOWN_SECTION}
_LIVE_KEYS: Final = frozenset({"store.history_retention", "server.drain_timeout", "log.level"})


class Difference(Struct, frozen=True):
    """A setting of a namespace that differs."""

    namespace: str
    key: str
    before: str
    after: str

    @property
    def is_live(self) -> bool:
        """Whether a running daemon takes it over."""
        return self.key in _LIVE_KEYS or self.key.partition(".")[0] in _LIVE_SECTIONS


def differences(before: Settings, after: Settings) -> Iterator[Difference]:
    """Yield what differs, by namespace, in the order of the settings."""
    for namespace, world in before.worlds.items():
        # That one came or went is a difference of the main file.
        if namespace in after.worlds:
            of_it = None if namespace == DEFAULT_NAMESPACE else OF_A_NAMESPACE
            yield from _between(namespace, _flat(world, of_it), _flat(after.worlds[namespace], of_it))


def _between(namespace: str, before: dict[str, str], after: dict[str, str]) -> Iterator[Difference]:
    for key in before | after:
        old, new = before.get(key, _NONE), after.get(key, _NONE)
        if old != new and key.startswith(f"{_NOT_SHOWN_SECTION}."):
            yield Difference(namespace, key, _NOT_SHOWN, _NOT_SHOWN)
        elif old != new:
            yield Difference(namespace, key, old, new)


def _flat(settings: Settings, sections: frozenset[str] | None) -> dict[str, str]:
    return {
        key: text
        for name in Settings.model_fields
        if sections is None or name in sections
        for key, text in _leaves(name, getattr(settings, name), is_length=False)
    }


def _leaves(key: str, value: Any, *, is_length: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            marked = any(isinstance(mark, Length) for mark in field.metadata)
            yield from _leaves(f"{key}.{field.alias or name}", getattr(value, name), is_length=marked)
    elif isinstance(value, dict) and any(isinstance(inner, BaseModel) for inner in value.values()):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner, is_length=False)
    elif not (isinstance(value, dict) and not value):
        yield key, spell_setting(value, is_length=is_length)
