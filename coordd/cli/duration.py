"""Durations as operators write and read them: `250ms`, `30s`, `5m`, `1h30m`, `7d`.

Rules: a duration is an integer of nanoseconds here; a bare number is refused, since nobody could say of what;
what is shown can be typed in again. Knows nothing of the daemon's bounds: those are the daemon's to check.
"""

import re
from decimal import Decimal

import click
from google.protobuf.duration_pb2 import Duration

__all__ = ["DURATION", "DurationType", "duration_of", "format_duration", "parse_duration"]

_UNITS_NS = {"d": 86_400 * 10**9, "h": 3_600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
# No RPC takes a longer one (10 years), and anything below this fits google.protobuf.Duration.
_LONGEST_NS = 3_660 * _UNITS_NS["d"]


def parse_duration(text: str) -> int:
    """Read a duration such as `1h30m`.

    Args:    text: numbers, each with its unit: d, h, m, s or ms; any order, decimals allowed.
    Returns: nanoseconds.
    Raises:  ValueError if it is none, or longer than 10 years.
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write it like 30s, 5m, 1h30m, 250ms or 7d")
    total_ns = int(sum(Decimal(number) * _UNITS_NS[unit] for number, unit in parts))
    if total_ns > _LONGEST_NS:
        raise ValueError(f"{text!r} is longer than 10 years")
    return total_ns


def format_duration(duration_ns: int) -> str:
    """Write a duration: whole seconds from a minute on, milliseconds below 1 s, three decimals between."""
    if duration_ns < 0:
        return "-" + format_duration(-duration_ns)
    if 0 < duration_ns < _UNITS_NS["s"]:
        return f"{duration_ns / _UNITS_NS['ms']:.3g}ms"
    if duration_ns < _UNITS_NS["m"]:
        return f"{duration_ns // _UNITS_NS['ms'] / 1000:g}s"
    text, rest_ns = "", duration_ns
    for unit in ("d", "h", "m", "s"):
        count, rest_ns = divmod(rest_ns, _UNITS_NS[unit])
        text += f"{count}{unit}" if count else ""
    return text


def duration_of(duration_ns: int | None) -> Duration | None:
    """The message for a duration in nanoseconds; None stays None, which leaves the field absent."""
    if duration_ns is None:
        return None
    message = Duration()
    message.FromNanoseconds(duration_ns)
    return message


class DurationType(click.ParamType[int]):
    """An option's value that is a duration; the command gets nanoseconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Nanoseconds; a default that is already an integer passes."""
        if isinstance(value, int):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = DurationType()
