"""Turns the models of coordd/config into docs/configuration.md.

Usage: gen_config_docs.py >docs/configuration.md
Equal input gives equal output, for `make gen-check` compares.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coordd.config import (
    DEFAULT_KINDS,
    DEFAULT_POOLS,
    DEFAULT_TYPES,
    ENVIRONMENT,
    Length,
    Settings,
    Shown,
    section_model,
)
from coordd.core.lengths import spell_length

_HEAD: Final = """\
<!-- Generated from coordd/config by `make gen`; edit the descriptions there. -->

# Configuration

`coordd serve --config FILE` reads one TOML file; `coordd check-config FILE` checks it and prints what it
says. Every key is optional but `windows` of a limit. An unknown key, a value out of range and settings that
contradict each other are refused at start (exit code 2) with one line each: file, key and reason. All are
told at once, but whether a table agrees with others is told once each of them is right in itself.
`examples/coordd.toml` is the defaults written out.

- **Lengths of time** are strings with a unit: `"250ms"`, `"30s"`, `"15m"`, `"1h30m"`, `"90d"`; bare numbers
  are refused.
- **Names** (of kinds, pools, types, limits) are 1 .. 64 bytes of printable text without `/`.
- **Tables with a NAME** that exists by default are merged with that default key by key.
- **Contradictions** that are refused: a longer window that allows less than a shorter one, or more than its
  length's worth of the shorter one; a type that draws on a pool that is not there; `[aging]` that does not
  rise; `history_retention` shorter than a kind's `min_interval` or `lock_delay`, or than `[requests] memory`.

## Environment

These go before the file; an empty variable is as none.

| variable | key |
|---|---|
"""
_NAMED_DEFAULTS: Final = {"kinds": DEFAULT_KINDS, "pools": DEFAULT_POOLS, "types": DEFAULT_TYPES}


def main() -> None:
    """Print the page."""
    print(_HEAD + "\n".join(f"| `{name}` | `{'.'.join(key)}` |" for name, key in ENVIRONMENT.items()))
    for name, field in Settings.model_fields.items():
        print("\n".join(_section(name, field)))


def _section(name: str, field: FieldInfo) -> Iterator[str]:
    is_named = get_origin(field.annotation) is dict
    model = section_model(field.annotation)
    yield f"\n## [{name}.NAME]\n" if is_named else f"\n## [{name}]\n"
    yield " ".join((model.__doc__ or "").split())
    yield "\n| key | default | unit | range | meaning |\n|---|---|---|---|---|"
    yield from (_row(model, key) for key in model.model_fields)
    if defaults := _NAMED_DEFAULTS.get(name):
        yield "\nBuilt in:\n"
        yield from (f"- `{built_in}`{_differences(table)}" for built_in, table in defaults.items())


def _row(model: type[BaseModel], key: str) -> str:
    field = model.model_fields[key]
    unit, bounds = _unit_and_range(field)
    return f"| `{field.alias or key}` | {_default(field)} | {unit} | {bounds} | {field.description} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if any(isinstance(mark, Length) for mark in field.metadata):
        return f'`"{spell_length(value)}"`'
    if value in (None, 0, {}, []):
        return "none"
    return f"`{str(value).lower()}`" if isinstance(value, bool | int | float) else f'`"{value}"`'


def _unit_and_range(field: FieldInfo) -> tuple[str, str]:
    unit, bounds = "", ""
    for mark in field.metadata:
        match mark:
            case Length():
                unit, bounds = "length of time", str(mark)
            case Shown():
                unit, bounds = mark.unit or unit, mark.bounds or bounds
            case Ge():
                bounds = f"{mark.ge} .. {bounds}"
            case Le():
                bounds += str(mark.le)
            case Lt():
                bounds += f"below {mark.lt}"
    return unit or _unit(field.annotation), bounds or _choices(field.annotation)


def _unit(annotation: Any) -> str:
    return {bool: "boolean", int: "count"}.get(annotation, "")


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f'`"{choice}"`' for choice in get_args(annotation))
    return ""


def _differences(table: dict[str, Any]) -> str:
    return ": " + ", ".join(f"`{key} = {_toml(value)}`" for key, value in table.items()) if table else ""


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    main()
