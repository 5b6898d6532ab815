"""Reads the file and the environment.

Rules: all problems are told at once, each with its key; nothing is guessed from a wrong value.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from coordd.config.problems import ConfigError, Problems
from coordd.config.settings import Settings

# Variable -> the key it overrides. Only what a deployment needs; an empty variable is as none.
ENVIRONMENT: Final = {
    "COORDD_ADDRESS": ("server", "address"),
    "COORDD_DATA_PATH": ("store", "path"),
    "COORDD_LOG_LEVEL": ("log", "level"),
}

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_INPUT_CHARS_MAX: Final = 60


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
        if isinstance(cause, Problems):
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
