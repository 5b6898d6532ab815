"""A setting's value in words, as the file would have it, or nearly so."""

from typing import Any, Final

from coordd.core.lengths import spell_length

NOTHING: Final = "-"


def spell_setting(value: Any, *, is_length: bool) -> str:
    """Return a value in words. `is_length`: it is a length of time, in ns."""
    if is_length:
        return spell_length(value)
    if isinstance(value, dict):
        return ", ".join(_entry(key, inner) for key, inner in value.items()) or NOTHING
    if isinstance(value, list):
        return ", ".join(value) or NOTHING
    if isinstance(value, bool):
        return str(value).lower()
    # A capacity of 0 is none; a quality of 0.0 is one.
    is_none = value is None or value == "" or (isinstance(value, int) and value == 0)
    return NOTHING if is_none else str(value)


def _entry(key: int | str, value: float | str) -> str:
    # A window, or a pool by the id that draws on it, an interval by kind, a part by class.
    if isinstance(key, int):
        return f"{value}/{spell_length(key)}"
    return f"{key}: {spell_length(value) if isinstance(value, int) else value}"
