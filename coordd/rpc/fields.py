"""Checks of form: what arrives in a message becomes a value that core may rely on, or the call is refused.

Rules: every bound comes from `core.limits`; a refusal names the field and the bound, and never echoes a text
(it may be megabytes, or unprintable). Whether a name is *known* is the machine's to say. Must not know: any
service.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from coordd.core import limits
from coordd.core.capacity import OVERLOADED
from coordd.core.errors import InvalidArgument
from coordd.core.lengths import UNITS
from coordd.core.records import Outcome
from coordd.core.rules import CRITICAL, ESCALATE, LOW, MEDIUM, WAIT
from coordd.v1 import admin_pb2, rate_limit_pb2

_PROTO_SECONDS_MAX: Final = 315_576_000_000
# Any more could be above 2**63 - 1, the largest integer that SQLite can compare with.
_ID_DIGITS_MAX: Final = 18
_UNITS: Final = (*UNITS.items(), ("ns", 1))
_STATUS_CODE_MIN: Final = 100
_STATUS_CODE_MAX: Final = 599


def text(field: str, value: str, bytes_max: int, *, is_required: bool = True) -> str:
    """Return `value` if it is 1..`bytes_max` bytes of printable UTF-8, or empty where that is allowed.

    Printable is what `str.isprintable` says: no control, format or private characters, no line breaks, no
    space but U+0020; they would let one worker forge another's line in a log or a table. Raises:
    InvalidArgument INVALID_ID.
    """
    if not value and is_required:
        raise InvalidArgument("INVALID_ID", f"{field} is required", field=field)
    size = len(value) if value.isascii() else len(value.encode())
    if size > bytes_max:
        message = f"{field} is {size} bytes long, more than {bytes_max}"
        raise InvalidArgument("INVALID_ID", message, field=field, bytes=size, bytes_max=bytes_max)
    if not value.isprintable():
        raise InvalidArgument("INVALID_ID", f"{field} has characters that are not printable", field=field)
    return value


def item(value: str) -> str:
    """Return a well-formed item id. Raises: InvalidArgument INVALID_ID."""
    return text("item", value, limits.ITEM_BYTES_MAX)


def resource_id(value: str) -> str:
    """Return a well-formed resource id, or an empty one. Raises: InvalidArgument INVALID_ID."""
    return text("resource_id", value, limits.ITEM_BYTES_MAX, is_required=False)


def worker(value: str) -> str:
    """Return a well-formed worker id. Raises: InvalidArgument INVALID_ID."""
    return text("worker", value, limits.WORKER_BYTES_MAX)


def worker_filter(value: str) -> str:
    """Return a well-formed worker id, or an empty one: everybody. Raises: InvalidArgument INVALID_ID."""
    return text("worker", value, limits.WORKER_BYTES_MAX, is_required=False)


def request_id(value: str) -> str:
    """Return a well-formed request id, or an empty one: none. Raises: InvalidArgument INVALID_ID."""
    return text("request_id", value, limits.REQUEST_ID_BYTES_MAX, is_required=False)


def name(field: str, value: str) -> str:
    """Return a well-formed name of something configured. Raises: InvalidArgument INVALID_ID."""
    return text(field, value, limits.NAME_BYTES_MAX)


def name_filter(field: str, value: str) -> str:
    """Return a well-formed name of something configured, or empty: any.

    Raises: InvalidArgument INVALID_ID.
    """
    return text(field, value, limits.NAME_BYTES_MAX, is_required=False)


def duration_ns(field: str, value: Duration, ns_min: int, ns_max: int) -> int:
    """Return a Duration as ns if it is well-formed and within `ns_min`..`ns_max`.

    Raises: InvalidArgument INVALID_DURATION.
    """
    ns = value.seconds * limits.SECOND + value.nanos
    if not _is_well_formed(value):
        message = f"{field} is not a valid Duration: nanos out of range or of another sign than seconds"
        raise InvalidArgument("INVALID_DURATION", message, field=field)
    if not ns_min <= ns <= ns_max:
        message = f"{field} is not within {_length(ns_min)}..{_length(ns_max)}"
        raise InvalidArgument("INVALID_DURATION", message, field=field, ns=ns, ns_min=ns_min, ns_max=ns_max)
    return ns


def _length(ns: int) -> str:
    """Return a length of time for people: a whole number of the largest unit; one day is 24h."""
    if not ns:
        return "0s"
    unit, unit_ns = next((unit, size) for unit, size in _UNITS[ns <= limits.DAY :] if ns % size == 0)
    return f"{ns // unit_ns}{unit}"


def _is_well_formed(value: Duration) -> bool:
    is_in_range = abs(value.seconds) <= _PROTO_SECONDS_MAX and abs(value.nanos) < limits.SECOND
    return is_in_range and value.seconds * value.nanos >= 0


def optional_ns(message: Message, field: str, ns_min: int, ns_max: int, absent: int) -> int:
    """Return the Duration in `field` as ns, `absent` where not set.

    Raises: InvalidArgument INVALID_DURATION.
    """
    if not message.HasField(field):
        return absent
    return duration_ns(field, getattr(message, field), ns_min, ns_max)


def ttl_ns(message: Message) -> int:
    """Return how long to hold, 0 for the default. Raises: InvalidArgument INVALID_DURATION."""
    return optional_ns(message, "ttl", limits.TTL_NS_MIN, limits.TTL_NS_MAX, 0)


def wait_ns(message: Message, default_ns: int) -> int:
    """Return how long to wait. Raises: InvalidArgument INVALID_DURATION."""
    return optional_ns(message, "wait_timeout", limits.WAIT_NS_MIN, limits.WAIT_NS_MAX, default_ns)


def latency_ns(message: Message) -> int:
    """Return `latency` in ns, 0 if absent. Raises: InvalidArgument INVALID_DURATION."""
    return optional_ns(message, "latency", 0, limits.HISTORY_NS_MAX, 0)


def within_ns(message: Message) -> int:
    """Return how far to look back. Raises: InvalidArgument INVALID_DURATION."""
    return optional_ns(message, "within", 1, limits.HISTORY_NS_MAX, limits.DAY)


def quality(value: float) -> float:
    """Return the quality; where absent it comes as 0.

    Raises: InvalidArgument INVALID_QUALITY, also for NaN.
    """
    if not 0 <= value <= 1:
        raise InvalidArgument(
            "INVALID_QUALITY", f"quality is {value}, not within 0..1", field="quality", value=value
        )
    return value


def priority(value: int) -> int:
    """Return the priority class, MEDIUM where unspecified. Raises: InvalidArgument INVALID_ENUM."""
    return choice("priority", value, LOW, CRITICAL) if value else MEDIUM


def on_conflict(value: int) -> int:
    """Return what happens on a conflict, 0 for as configured. Raises: InvalidArgument INVALID_ENUM."""
    return choice("on_conflict", value, WAIT, ESCALATE) if value else 0


def choice(field: str, value: int, first: int, last: int) -> int:
    """Return an enum's number if it is within `first`..`last`. Raises: InvalidArgument INVALID_ENUM.

    An unknown number comes from a newer client: to guess would be to do something else than it asked.
    """
    if not first <= value <= last:
        message = f"{field} is required" if value == 0 else f"{field} has no value {value}"
        raise InvalidArgument("INVALID_ENUM", message, field=field, value=value)
    return value


def outcome(value: int) -> int:
    """Return how an engagement ended. Raises: InvalidArgument INVALID_ENUM."""
    return choice("outcome", value, min(Outcome), max(Outcome))


def usage_result(value: int) -> int:
    """Return what became of a permit. Raises: InvalidArgument INVALID_ENUM."""
    return choice("result", value, rate_limit_pb2.USAGE_RESULT_SUCCESS, rate_limit_pb2.USAGE_RESULT_NOT_SENT)


def work_result(value: int) -> int:
    """Return how work went, 0 not said. Raises: InvalidArgument INVALID_ENUM."""
    return choice("work_result", value, 0, OVERLOADED)


def count(field: str, value: int, least: int, most: int) -> int:
    """Return a number if it is within `least`..`most`. Raises: InvalidArgument INVALID_COUNT."""
    if not least <= value <= most:
        message = f"{field} is {value}, not within {least}..{most}"
        raise InvalidArgument("INVALID_COUNT", message, field=field, value=value, least=least, most=most)
    return value


def status_code(value: int) -> int:
    """Return an HTTP status, or 0 for none. Raises: InvalidArgument INVALID_COUNT."""
    return count("status_code", value, _STATUS_CODE_MIN, _STATUS_CODE_MAX) if value else 0


def headers(values: Sequence[rate_limit_pb2.Header]) -> tuple[tuple[str, str], ...]:
    """Return header fields as they came. Raises: InvalidArgument INVALID_HEADERS.

    Only sizes are checked: what upstream sent may be odd, and the permit must be settled nevertheless.
    """
    if len(values) > limits.HEADERS_MAX:
        message = f"{len(values)} header fields are more than {limits.HEADERS_MAX}"
        raise InvalidArgument("INVALID_HEADERS", message, field="headers", count=len(values))
    return tuple(_header(index, header) for index, header in enumerate(values))


def _header(index: int, header: rate_limit_pb2.Header) -> tuple[str, str]:
    name_bytes, value_bytes = len(header.name.encode()), len(header.value.encode())
    if not 1 <= name_bytes <= limits.HEADER_NAME_BYTES_MAX or value_bytes > limits.HEADER_VALUE_BYTES_MAX:
        message = f"headers[{index}] has a name of {name_bytes} bytes and a value of {value_bytes}"
        raise InvalidArgument("INVALID_HEADERS", message, field=f"headers[{index}]")
    return header.name, header.value


def windows(values: Sequence[admin_pb2.WindowLimit]) -> Mapping[int, int]:
    """Return window limits as length in ns -> limit.

    Raises: InvalidArgument INVALID_DURATION, INVALID_COUNT, or CONTRADICTING_WINDOWS (one window named
    twice).
    """
    count("windows", len(values), 0, limits.WINDOWS_PER_LIMIT_MAX)
    pairs = [_window(index, value) for index, value in enumerate(values)]
    if len(dict(pairs)) < len(pairs):
        raise InvalidArgument("CONTRADICTING_WINDOWS", "windows names the same window twice", field="windows")
    return dict(pairs)


def _window(index: int, value: admin_pb2.WindowLimit) -> tuple[int, int]:
    field = f"windows[{index}]"
    length_ns = duration_ns(f"{field}.window", value.window, limits.WINDOW_NS_MIN, limits.WINDOW_NS_MAX)
    return length_ns, count(f"{field}.limit", value.limit, 1, limits.UNITS_MAX)


def page_size(value: int) -> int:
    """Return how many entries a page has, the default for 0. Raises: InvalidArgument INVALID_PAGE."""
    if value > limits.PAGE_SIZE_MAX:
        message = f"page_size is {value}, more than {limits.PAGE_SIZE_MAX}"
        raise InvalidArgument(
            "INVALID_PAGE", message, field="page_size", value=value, most=limits.PAGE_SIZE_MAX
        )
    return value or limits.PAGE_SIZE_DEFAULT


def page_token(collection: str, after: int | str) -> str:
    """Return the token of the page that starts after `after`. It names its list, so that it fits no other."""
    return base64.urlsafe_b64encode(f"{collection}:{after}".encode()).decode()


def after_id(collection: str, token: str) -> int:
    """Return the id after which the page starts, 0 for the first. Raises: InvalidArgument INVALID_PAGE."""
    after = _after(collection, token)
    if not after:
        return 0
    if not (after.isascii() and after.isdecimal()) or len(after) > _ID_DIGITS_MAX:
        raise _foreign_token()
    return int(after)


def after_name(collection: str, token: str) -> str:
    """Return the name after which the page starts, empty for the first.

    Raises: InvalidArgument INVALID_PAGE.
    """
    return _after(collection, token)


def _after(collection: str, token: str) -> str:
    try:
        prefix, _, after = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(":")
    except ValueError as error:  # not base64, not ASCII, or not UTF-8 within
        raise _foreign_token() from error
    if token and not (prefix == collection and after):
        raise _foreign_token()
    return after


def _foreign_token() -> InvalidArgument:
    return InvalidArgument("INVALID_PAGE", "page_token is not one of this list's", field="page_token")


def weight_milli(value: float) -> int:
    """Return a weight x 1000, 0 where absent. Raises: InvalidArgument INVALID_COUNT, also for NaN."""
    if value and not 1 <= value * 1_000 <= limits.WEIGHT_MILLI_MAX:
        most = limits.WEIGHT_MILLI_MAX // 1_000
        message = f"weight is {value}, not within 0.001..{most}"
        raise InvalidArgument("INVALID_COUNT", message, field="weight", value=value)
    return round(value * 1_000)


def labels(values: Mapping[str, str]) -> str:
    """Return labels as JSON, by name. Raises: InvalidArgument INVALID_COUNT, INVALID_ID."""
    count("labels", len(values), 0, limits.LABELS_MAX)
    for label, value in values.items():
        name("labels", label)
        name_filter("labels", value)
    return json.dumps(dict(sorted(values.items())), ensure_ascii=False, separators=(",", ":"))


def names(field: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return well-formed names, each once. Raises: InvalidArgument INVALID_ID."""
    return tuple(dict.fromkeys(name(field, value) for value in values))
