"""The settings as text for people: every one that holds, and which of them differ from the defaults.

Must not know: what the settings mean. A new key shows up by itself.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from pydantic import BaseModel

from coordd.config import (
    NOTHING,
    OF_A_NAMESPACE,
    Length,
    PoolSettings,
    Settings,
    section_model,
    spell_setting,
)

__all__ = ["settings_lines"]

_MARK: Final = " *"


def settings_lines(settings: Settings) -> Iterator[str]:
    """Yield the lines: a block for each section, ` *` behind what differs from the default.

    The sections of namespaces come after those of the main file.
    """
    yield from _sections(settings, Settings.model_fields)
    of_a_namespace = [name for name in Settings.model_fields if name in OF_A_NAMESPACE]
    for name, file in settings.namespaces.items():
        yield f"namespace {name}, {file.file}:"
        yield ""
        yield from _sections(settings.worlds[name], of_a_namespace)
    yield "* differs from the default"


def _sections(settings: Settings, names: Iterable[str]) -> Iterator[str]:
    # Not `load`: the environment is a difference, too.
    defaults = Settings()
    for name in names:
        field = Settings.model_fields[name]
        table, default = getattr(settings, name), getattr(defaults, name)
        if isinstance(table, BaseModel):
            yield from _aligned([[f"[{name}]"], *_pairs(_texts(table), _texts(default))])
        else:
            yield from _aligned(list(_columns(name, section_model(field.annotation), table, default)))
        yield ""


def _pairs(texts: Mapping[str, str], defaults: Mapping[str, str]) -> Iterator[list[str]]:
    for key, text in texts.items():
        yield [f"  {key}", _marked(text, defaults[key])]


def _columns(
    section: str,
    model: type[BaseModel],
    tables: Mapping[str, BaseModel],
    defaults: Mapping[str, BaseModel],
) -> Iterator[list[str]]:
    """Yield a section of tables, a column for each, since they have more keys than a line has room."""
    removed = [name for name in defaults if name not in tables]
    names = [name if name in defaults else name + _MARK for name in tables]
    yield [f"[{section}]", *names, *(name + _MARK for name in removed)]
    if not tables and not removed:
        yield ["  none"]
        return
    texts = [(_texts(table), _texts(defaults.get(name) or _fresh(table))) for name, table in tables.items()]
    for key in (field.alias or name for name, field in model.model_fields.items() if name != "enabled"):
        cells = (_marked(text[key], default[key]) for text, default in texts)
        yield [f"  {key}", *cells, *("removed" for _ in removed)]


def _fresh(table: BaseModel) -> BaseModel:
    """Return what `table` would be with no more in it than is required."""
    required = {
        key: getattr(table, key) for key, field in type(table).model_fields.items() if field.is_required()
    }
    return type(table).model_construct(**required)


def _texts(table: BaseModel) -> dict[str, str]:
    fields = type(table).model_fields.items()
    texts = {
        field.alias or key: spell_setting(
            getattr(table, key), is_length=any(isinstance(mark, Length) for mark in field.metadata)
        )
        for key, field in fields
        if key != "enabled"
    }
    if isinstance(table, PoolSettings) and not table.windows:
        texts["use_within"] = NOTHING
    return texts


def _marked(text: str, default: str) -> str:
    return text if text == default else text + _MARK


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    # The last cell of a row takes no part: nothing stands behind it, and lists of pools are long.
    widths: dict[int, int] = {}
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths.get(column, 0), len(cell))
    for row in rows:
        yield "  ".join(
            cell if column == len(row) - 1 else cell.ljust(widths[column]) for column, cell in enumerate(row)
        )
