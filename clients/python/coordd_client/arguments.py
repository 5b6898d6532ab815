"""What a caller hands in, looked at where it is handed in: a wrong type is named at once, not deep inside.

Rules: of a value this judges only its type and whether a message can carry it; which ids, times and counts
are good is the daemon's to say.
"""

import enum
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, SupportsFloat, TypeVar

from coordd_client.errors import InvalidRequest
from coordd_client.values import OnConflict, Priority

_COUNT_MAX = 2**32 - 1  # uint32 on the wire
_ID_MAX = 2**64 - 1  # uint64
_DURATION_S_MAX = 315_576_000_000.0  # google.protobuf.Duration: about 10,000 years
_SHOWN_MAX = 80
_STATUS_CODE_MIN = 100
_STATUS_CODE_MAX = 599

CallbackT = TypeVar("CallbackT", bound=Callable[..., object])


def text(name: str, value: str) -> str:
    """Returns a text. Raises: TypeError; InvalidRequest if it has surrogates, which are not UTF-8."""
    if not isinstance(value, str):
        raise _wrong_type(f"{name} is a text", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"{name} is not valid Unicode", reason="INVALID_ID", metadata={"field": name}
        ) from None
    return value


def header(name: str, value: str) -> str:
    """Returns a text that a header can carry. Raises: TypeError; InvalidRequest if one can't."""
    if not (text(name, value).isascii() and value.isprintable()):
        raise InvalidRequest(f"{name} is not printable ASCII", reason="INVALID_ID", metadata={"field": name})
    return value


def texts(name: str, values: Iterable[str]) -> list[str]:
    """Returns texts. Raises: TypeError, also for one text, which would be taken for its letters."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise _wrong_type(f"{name} is a list of texts", values)
    return [text(name, each) for each in values]


def seconds(name: str, value: float) -> float:
    """Returns a length of time in seconds. Raises: TypeError; InvalidRequest if no Duration can say it."""
    length_s = _number(f"{name} is in seconds: a number", value)
    if not abs(length_s) <= _DURATION_S_MAX:  # so put, NaN fails it too
        raise InvalidRequest(
            f"{name} is {length_s}, which is not a duration in seconds",
            reason="INVALID_DURATION",
            metadata={"field": name},
        )
    return length_s


def optional_seconds(name: str, value: float | None) -> float | None:
    """Returns a length of time in seconds, or None. Raises: TypeError, InvalidRequest."""
    return None if value is None else seconds(name, value)


def fraction(name: str, value: float | None) -> float | None:
    """Returns a number, or None. Raises: TypeError."""
    return None if value is None else _number(f"{name} is a number from 0 to 1", value)


def weight(value: float | None) -> float | None:
    """Returns a weight, or None. Raises: TypeError."""
    return None if value is None else _number("weight is a number", value)


def count(name: str, value: int, *, least: int = 0, most: int = _COUNT_MAX) -> int:
    """Returns a count within `least`..`most`. Raises: TypeError; InvalidRequest."""
    number = _whole(name, value)
    if not least <= number <= most:
        raise InvalidRequest(
            f"{name} is {number}, not within {least}..{most}",
            reason="INVALID_COUNT",
            metadata={"field": name, "value": str(number), "least": str(least), "most": str(most)},
        )
    return number


def status_code(value: int) -> int:
    """Returns an HTTP status. Raises: TypeError; InvalidRequest, which is a ValueError, out of 100..599."""
    return count("status_code", value, least=_STATUS_CODE_MIN, most=_STATUS_CODE_MAX)


def identifier(name: str, value: int) -> int:
    """Returns an id that the daemon gave. Raises: TypeError; InvalidRequest if it can have given no such."""
    number = _whole(name, value)
    if not 0 <= number <= _ID_MAX:
        raise InvalidRequest(f"{name} is {number}, not an id", reason="INVALID_ID", metadata={"field": name})
    return number


def priority(value: Priority) -> Any:
    """Returns a class's number; generated code has a type of its own for it. Raises: TypeError."""
    if not isinstance(value, Priority):
        raise _wrong_type("priority is a Priority, such as Priority.MEDIUM", value)
    return value.value


def on_conflict(value: OnConflict | None) -> Any:
    """Returns the number of what becomes of a conflict, 0 for None. Raises: TypeError, InvalidRequest."""
    return 0 if value is None else choice("on_conflict", OnConflict, value)


def choice(name: str, kind: type[enum.IntEnum], value: enum.IntEnum) -> Any:
    """Returns the number of a value of `kind`, other than 0. Raises: TypeError, InvalidRequest."""
    if not isinstance(value, kind):
        raise _wrong_type(f"{name} is a {kind.__name__}", value)
    if not value:
        raise InvalidRequest(f"{name} is required", reason="INVALID_ENUM")
    return value.value


def callback(name: str, takes: str, value: CallbackT | None) -> CallbackT | None:
    """Returns something that can be called, or None. Raises: TypeError."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} is called with {takes}, but {_shown(value)} cannot be")
    return value


def pairs(name: str, values: Any) -> list[tuple[str, str]]:
    """Returns the pairs of a mapping, or pairs as they are. Raises: TypeError if they are not of texts."""
    rule = f"{name} takes a mapping or pairs of texts"
    given = values.items() if isinstance(values, Mapping) else values
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise _wrong_type(rule, values)
    found = [tuple(pair) if isinstance(pair, Sequence) else () for pair in given]
    if not all(len(pair) == 2 and all(isinstance(each, str) for each in pair) for pair in found):
        raise _wrong_type(rule, values)
    return found


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_MAX else shown[:_SHOWN_MAX] + "..."


def _wrong_type(rule: str, value: object) -> TypeError:
    return TypeError(f"{rule}, not {_shown(value)}")


def _number(rule: str, value: object) -> float:
    # A bool is a number to Python, but `wait=True` is a mistake: it would wait for a second.
    if isinstance(value, bool) or not isinstance(value, SupportsFloat):
        raise _wrong_type(rule, value)
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _whole(name: str, value: object) -> int:
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise _wrong_type(f"{name} is a whole number", value)
