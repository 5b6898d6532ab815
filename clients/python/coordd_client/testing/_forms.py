"""The double's checks of form, with the daemon's bounds, reasons and words; see docs/api.md for each field.

A field's name says what it must be, whichever message it is in; only whether a name may be left out depends
on the message.
"""

from collections.abc import Callable, Iterable, Mapping

from google.protobuf.message import Message

from coordd.v1 import bundle_pb2, engagement_pb2, reservation_pb2, session_pb2
from coordd_client.errors import InvalidRequest

_BYTES_MAX: Mapping[str, int] = {
    "item": 512,
    "kind": 64,
    "kinds": 64,
    "worker": 128,
    "type": 64,
    "resource_id": 512,
    "operation": 64,
    "endpoint": 64,
    "request_id": 128,
    "worker_class": 64,
}
_OPTIONAL_EVERYWHERE = {"resource_id", "request_id", "worker_class"}
_OPTIONAL: Mapping[type[Message], set[str]] = {
    engagement_pb2.GetLockRequest: {"kind"},
    engagement_pb2.ListLocksRequest: {"worker"},
    engagement_pb2.GetEngagementStatsRequest: {"worker"},
    reservation_pb2.ListReservationsRequest: {"worker", "type"},
    bundle_pb2.ReleaseBundleRequest: {"outcome"},
}
_MILLISECOND_NS, _DAY_NS = 10**6, 86_400 * 10**9
# The least, the most, and how the daemon says it.
_BOUNDS_NS: Mapping[str, tuple[int, int, str]] = {
    "ttl": (100 * _MILLISECOND_NS, _DAY_NS, "100ms..24h"),
    "wait_timeout": (_MILLISECOND_NS, _DAY_NS, "1ms..24h"),
    "within": (1, 3_653 * _DAY_NS, "1ns..3653d"),
    "not_before": (0, _DAY_NS, "0s..24h"),
    "latency": (0, 3_653 * _DAY_NS, "0s..3653d"),
}
# Where a message has bounds of its own.
_BOUNDS_NS_OF: Mapping[tuple[type[Message], str], tuple[int, int, str]] = {
    (session_pb2.Register, "ttl"): (10**9, 3_600 * 10**9, "1s..1h"),
}
_WEIGHT_MIN, _WEIGHT_MAX = 0.001, 1_000
_LABELS_MAX, _LABEL_BYTES_MAX = 16, 64
# The first and the last number of each; 0 where the daemon has a default for it.
_ENUMS: Mapping[str, tuple[int, int]] = {
    "priority": (0, 4),
    "outcome": (1, 3),
    "result": (1, 3),
    "work_result": (0, 2),
}
_PAGE_SIZE_MAX = 1_000
_LIST_MAX = 16


def check(request: Message) -> None:
    """Checks every field of a request. Raises: InvalidRequest."""
    for field in request.DESCRIPTOR.fields:
        if (judge := _JUDGES.get(field.name)) is not None:
            judge(request, field.name)


def _check_text(request: Message, name: str) -> None:
    value = getattr(request, name)
    is_optional = name in _OPTIONAL_EVERYWHERE or name in _OPTIONAL.get(type(request), ())
    for text in [value] if isinstance(value, str) else value:
        _check_one_text(name, text, is_optional=is_optional)


def _check_one_text(name: str, text: str, *, is_optional: bool) -> None:
    _check_size(name, text, _BYTES_MAX[name], is_optional=is_optional)


def _check_size(name: str, text: str, bytes_max: int, *, is_optional: bool) -> None:
    size = len(text.encode())
    if not text and not is_optional:
        raise _invalid("INVALID_ID", f"{name} is required", field=name)
    if size > bytes_max:
        message = f"{name} is {size} bytes long, more than {bytes_max}"
        raise _invalid("INVALID_ID", message, field=name, bytes=size, bytes_max=bytes_max)
    if not text.isprintable():
        raise _invalid("INVALID_ID", f"{name} has characters that are not printable", field=name)


def _check_duration(request: Message, name: str) -> None:
    if not request.HasField(name):
        return
    ns: int = getattr(request, name).ToNanoseconds()
    ns_min, ns_max, range_ = _BOUNDS_NS_OF.get((type(request), name), _BOUNDS_NS[name])
    if not ns_min <= ns <= ns_max:
        message = f"{name} is not within {range_}"
        raise _invalid("INVALID_DURATION", message, field=name, ns=ns, ns_min=ns_min, ns_max=ns_max)


def _check_quality(request: Message, name: str) -> None:
    value: float = getattr(request, name)
    if not 0 <= value <= 1:  # so put, NaN fails it too
        raise _invalid("INVALID_QUALITY", f"{name} is {value}, not within 0..1", field=name, value=value)


def _check_weight(request: Message, name: str) -> None:
    value: float = getattr(request, name)
    if value and not _WEIGHT_MIN <= value <= _WEIGHT_MAX:  # so put, NaN fails it too
        message = f"{name} is {value}, not within {_WEIGHT_MIN}..{_WEIGHT_MAX}"
        raise _invalid("INVALID_COUNT", message, field=name, value=value)


def _check_labels(request: Message, name: str) -> None:
    labels: Mapping[str, str] = getattr(request, name)
    if len(labels) > _LABELS_MAX:
        message = f"{name} is {len(labels)}, not within 0..{_LABELS_MAX}"
        raise _invalid("INVALID_COUNT", message, field=name, value=len(labels), least=0, most=_LABELS_MAX)
    for label, value in labels.items():
        _check_size(name, label, _LABEL_BYTES_MAX, is_optional=False)
        _check_size(name, value, _LABEL_BYTES_MAX, is_optional=True)


def _check_enum(request: Message, name: str) -> None:
    value: int = getattr(request, name)
    first, last = _ENUMS[name]
    first = 0 if name in _OPTIONAL.get(type(request), ()) else first
    if not first <= value <= last:
        message = f"{name} has no value {value}" if value else f"{name} is required"
        raise _invalid("INVALID_ENUM", message, field=name, value=value)


def _check_list(request: Message, name: str) -> None:
    entries = getattr(request, name)
    least, most = (1 if name == "claims" else 0), _LIST_MAX
    if not least <= len(entries) <= most:
        message = f"{name} is {len(entries)}, not within {least}..{most}"
        raise _invalid("INVALID_COUNT", message, field=name, value=len(entries), least=least, most=most)
    for entry in entries:
        check(entry)


def _check_claim(request: Message, name: str) -> None:
    # Of a claim the one field that is set; the others say nothing.
    if isinstance(request, bundle_pb2.Claim) and request.WhichOneof("claim") == name:
        check(getattr(request, name))


def _check_page_size(request: Message, name: str) -> None:
    value: int = getattr(request, name)
    if value > _PAGE_SIZE_MAX:
        message = f"{name} is {value}, more than {_PAGE_SIZE_MAX}"
        raise _invalid("INVALID_PAGE", message, field=name, value=value, most=_PAGE_SIZE_MAX)


def _invalid(reason: str, message: str, **metadata: object) -> InvalidRequest:
    details = {key: str(value) for key, value in metadata.items()}
    return InvalidRequest(message, reason=reason, metadata=details)


_Judge = Callable[[Message, str], None]


def _all_by(judge: _Judge, names: Iterable[str]) -> dict[str, _Judge]:
    return dict.fromkeys(names, judge)


_JUDGES: Mapping[str, _Judge] = {
    **_all_by(_check_text, _BYTES_MAX),
    **_all_by(_check_duration, _BOUNDS_NS),
    **_all_by(_check_enum, _ENUMS),
    **_all_by(_check_list, ("claims", "not_engaged", "usages")),
    **_all_by(_check_claim, ("lock", "reservation", "permit")),
    "quality": _check_quality,
    "weight": _check_weight,
    "labels": _check_labels,
    "page_size": _check_page_size,
}
