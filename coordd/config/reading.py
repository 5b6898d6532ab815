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
from coordd.config.sections import StoreSettings
from coordd.config.settings import Settings

# Variable -> the key it overrides. Only what a deployment needs; an empty variable is as none.
ENVIRONMENT: Final = {
    "COORDD_ADDRESS": ("server", "address"),
    "COORDD_DATA_PATH": ("store", "path"),
    "COORDD_LOG_LEVEL": ("log", "level"),
}

# What a namespace's file may say something of; all else is the process's.
OF_A_NAMESPACE: Final = frozenset(
    {
        "store", "locks", "kinds", "pools", "types", "limits", "aging", "waits", "recovery", "requests",
        "scheduling", "sharing", "workers", "worker_classes", "escalation", "sessions", "quotas",
    }
)  # fmt: skip
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
    data, overridden = _data(path, environment, changes)
    problems: list[str] = []
    worlds = dict(_worlds(data, path, problems))
    settings = _validated(data, path, problems, overridden, worlds)
    if settings is None or problems:
        raise ConfigError(problems)
    return settings


def _data(
    path: Path | None, environment: Mapping[str, str], changes: Iterable[str]
) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """Return what is to be validated, and which variable or change has set what of it."""
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
    return data, overridden


def _validated(
    data: Mapping[str, Any],
    path: Path | None,
    problems: list[str],
    overridden: Mapping[tuple[str, ...], str],
    worlds: Mapping[str, Settings],
) -> Settings | None:
    """Return the settings; or None, with what is wrong added to `problems`."""
    try:
        return Settings.model_validate(data, context=worlds)
    except ValidationError as error:
        problems += _problem_lines(error, path, overridden)
    return None


def _worlds(
    data: Mapping[str, Any], path: Path | None, problems: list[str]
) -> Iterator[tuple[str, Settings]]:
    """Yield what the files of namespaces say, by name; add what is wrong in them to `problems`."""
    for name, given in _named_files(data):
        file = path.parent / given if path else Path(given)
        try:
            content = _read(file)
        except ConfigError as error:
            problems += error.problems
            continue
        of_the_process = content.keys() & Settings.model_fields.keys() - OF_A_NAMESPACE
        problems += (f"{file}: {key}: belongs to the main file" for key in content if key in of_the_process)
        tables = {key: table for key, table in content.items() if key not in of_the_process}
        store = tables.setdefault("store", {})
        if isinstance(store, dict):
            store.setdefault("path", _data_file_beside(data, name))
        if (settings := _validated(tables, file, problems, {}, {})) is not None:
            yield name, settings


def _named_files(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the namespaces that name a file; the others are told when the whole is validated."""
    tables = data.get("namespaces")
    for name, table in tables.items() if isinstance(tables, dict) else ():
        file = table.get("file") if isinstance(table, dict) else None
        if isinstance(file, str) and file and "\0" not in file:
            yield name, file


def _data_file_beside(data: Mapping[str, Any], name: str) -> str:
    """Return where a namespace's data is by default: beside the main file's."""
    store = data.get("store")
    path = store.get("path") if isinstance(store, dict) else None
    main = Path(path) if isinstance(path, str) else StoreSettings().path
    return str(main.parent / f"{name}.db")


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
