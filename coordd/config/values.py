"""What may stand in the file as a value: lengths of time, names, counts, windows.

Owns: their syntax, their bounds, and what the documentation says of both. In the file lengths of time are
strings with a unit; here they are ns.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import CoreSchema, core_schema

from coordd.core.lengths import UNITS, spell_length
from coordd.core.limits import (
    DAY,
    HISTORY_NS_MAX,
    NAME_BYTES_MAX,
    TTL_NS_MAX,
    TTL_NS_MIN,
    UNITS_MAX,
    WINDOW_NS_MAX,
    WINDOW_NS_MIN,
    WINDOWS_PER_LIMIT_MAX,
)
from coordd.core.rules import CRITICAL, DENY, ESCALATE, HIGH, LOW, MEDIUM, WAIT, contradiction

# The one that a call means which names none, and that the main file describes.
DEFAULT_NAMESPACE: Final = "default"
_PRIORITIES: Final = {"low": LOW, "medium": MEDIUM, "high": HIGH, "critical": CRITICAL}
ON_CONFLICT: Final = {"wait": WAIT, "deny": DENY, "escalate": ESCALATE}
_LENGTH: Final = re.compile(r"(?:[0-9]+(?:ms|d|h|m|s))+")
_PART: Final = re.compile(r"([0-9]+)(ms|d|h|m|s)")
_NAMESPACE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
UNIX: Final = "unix:"
# What sockaddr_un has room for, on every system.
_SOCKET_PATH_BYTES_MAX: Final = 103
_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


def parse_length(text: str) -> int:
    """Return ns of a length such as "250ms", "15m", "1h30m". Raises: ValueError with a hint."""
    if not _LENGTH.fullmatch(text):
        raise ValueError(
            f'{text!r} is not a length of time; write for instance "250ms", "30s", "1h30m" or "1d"'
        )
    return sum(int(count) * UNITS[unit] for count, unit in _PART.findall(text))


class Length:
    """Marks an int as a length of time in ns, `low` to `high`, with a unit. Checks and documents it."""

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high

    def __str__(self) -> str:
        return f"{spell_length(self.low)} .. {spell_length(self.high)}"

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        """Tell pydantic to call `check`."""
        return core_schema.no_info_plain_validator_function(self.check)

    def check(self, value: object) -> int:
        """Return ns. Raises: ValueError if `value` is no length of time, or not within the bounds."""
        if not isinstance(value, str):
            raise ValueError(f'a length of time needs a unit, for instance "30s" or "15m"; this is {value!r}')
        length_ns = parse_length(value)
        if not self.low <= length_ns <= self.high:
            raise ValueError(f"{value} is outside {self}")
        return length_ns


def _check_name(name: str) -> str:
    if not 1 <= len(name.encode()) <= NAME_BYTES_MAX or not name.isprintable() or "/" in name:
        raise ValueError(f"a name is 1..{NAME_BYTES_MAX} bytes of printable text without '/'")
    return name


def _check_namespace(name: str) -> str:
    if not _NAMESPACE.fullmatch(name):
        raise ValueError("a namespace is named by 1..64 of a-z, 0-9, - and _, the first a letter or digit")
    if name == DEFAULT_NAMESPACE:
        raise ValueError("is this file itself")
    return name


def _check_address(address: str) -> str:
    if address.startswith(UNIX):
        return _check_socket(address)
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[1]) > 65_535:
        raise ValueError(
            f'{address!r} is not HOST:PORT, for instance "127.0.0.1:7651" or "[::1]:7651", nor unix:/PATH'
        )
    return address


def _check_socket(address: str) -> str:
    path = address.removeprefix(UNIX)
    if not path.startswith("/") or not path.isprintable() or len(path.encode()) > _SOCKET_PATH_BYTES_MAX:
        raise ValueError(
            f"{address!r} is not unix: and an absolute path of at most {_SOCKET_PATH_BYTES_MAX} bytes"
        )
    return address


def is_local(address: str) -> bool:
    """Whether nobody can reach an address from outside this machine."""
    if address.startswith(UNIX):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        # Any other name may lead anywhere, and elsewhere tomorrow.
        return host == "localhost"


def _check_optional_address(address: str) -> str:
    if address.startswith(UNIX):
        raise ValueError(f"{address!r} is not HOST:PORT: whoever scrapes comes by TCP")
    return address and _check_address(address)


def _check_path(path: object) -> object:
    if path == "":
        raise ValueError("is empty; it names a file")
    if isinstance(path, str) and "\0" in path:
        raise ValueError("has a NUL in it")
    return path


def _check_file(path: object) -> object:
    if path == "":
        raise ValueError("is empty; leave it out for none")
    return _check_path(path)


def _check_distinct(windows: object) -> object:
    # Two spellings of one length ("60m", "1h") would otherwise silently become one entry.
    seen: dict[int, str] = {}
    for text in windows if isinstance(windows, dict) else ():
        if _LENGTH.fullmatch(text) and seen.setdefault(length_ns := parse_length(text), text) != text:
            raise ValueError(f"{seen[length_ns]!r} and {text!r} are the same window")
    return windows


def _check_windows(windows: dict[int, int]) -> dict[int, int]:
    if not 1 <= len(windows) <= WINDOWS_PER_LIMIT_MAX:
        raise ValueError(f"has {len(windows)} windows; 1..{WINDOWS_PER_LIMIT_MAX} are possible")
    if reason := contradiction(windows):
        raise ValueError(f"the windows contradict each other: {reason}")
    return dict(sorted(windows.items()))


class Shown:
    """Says in the documentation what a type does not say by itself. Pydantic ignores it."""

    def __init__(self, unit: str, bounds: str) -> None:
        self.unit = unit
        self.bounds = bounds


Name = Annotated[str, AfterValidator(_check_name)]
# It is a value of a header and the name of a file.
NamespaceName = Annotated[str, AfterValidator(_check_namespace)]
Address = Annotated[
    str, AfterValidator(_check_address), Shown("", "HOST:PORT, port 0 picks a free one; or unix:/PATH")
]
SocketMode = Annotated[str, Field(pattern=r"^0?[0-7]{3}$"), Shown("octal", "")]
OptionalAddress = Annotated[
    str, AfterValidator(_check_optional_address), Shown("", "HOST:PORT, port 0 picks a free one; empty: off")
]
DataPath = Annotated[
    Path,
    Field(strict=False),
    BeforeValidator(_check_path),
    Shown("", "a file; relative to the working directory"),
]
NamespaceFile = Annotated[
    Path, Field(strict=False), BeforeValidator(_check_path), Shown("", "a file; relative to this one")
]
FilePath = Annotated[
    Path | None,
    Field(strict=False),
    BeforeValidator(_check_file),
    Shown("", "a file; relative to the working directory"),
]
Ttl = Annotated[int, Length(TTL_NS_MIN, TTL_NS_MAX)]
Grace = Annotated[int, Length(0, DAY)]
Boost = Annotated[int, Length(0, HISTORY_NS_MAX)]
Units = Annotated[int, Field(ge=1, le=UNITS_MAX)]
Quota = Annotated[int, Field(ge=0, le=UNITS_MAX)]
Windows = Annotated[
    dict[Annotated[int, Length(WINDOW_NS_MIN, WINDOW_NS_MAX)], Units],
    BeforeValidator(_check_distinct),
    AfterValidator(_check_windows),
    Shown(
        "length of time = count",
        f"1 .. {WINDOWS_PER_LIMIT_MAX} windows of {Length(WINDOW_NS_MIN, WINDOW_NS_MAX)}, "
        f"each 1 .. {UNITS_MAX}",
    ),
]


def _check_headroom(headroom: dict["HeadroomClass", float]) -> dict["HeadroomClass", float]:
    if sum(headroom.values()) >= 1:
        raise ValueError("keeps everything: its parts add up to 1 or more")
    return headroom


Interval = Annotated[int, Length(0, HISTORY_NS_MAX)]
HeadroomClass = Literal["medium", "high", "critical"]
Headroom = Annotated[
    dict[HeadroomClass, Annotated[float, Field(ge=0, lt=1)]],
    AfterValidator(_check_headroom),
    Shown("class = part", "0 .. below 1, in all below 1"),
]
Allocation = Literal["priority", "fair"]
Share = Literal["equal", "proportional", "dynamic"]
OnConflict = Literal["wait", "deny", "escalate"]

ALLOCATION_TEXT: Final = (
    "`priority`: by class and time of waiting. `fair`: among workers of the same class the next grant "
    "goes to the one that has the smallest share."
)
SHARE_TEXT: Final = (
    "With `fair`: `equal` parts, `proportional` to the workers' weights, or `dynamic`, which also weighs "
    "how urgent a worker's requests are."
)
HEADROOM_TEXT: Final = (
    "Parts that only this class and those above may take, for instance `{ critical = 0.05 }`."
)
ON_CONFLICT_TEXT: Final = (
    "What becomes of a request that conflicts with a holder and does not say: it waits, is refused, or waits "
    "while a coordination worker is asked."
)
ESCALATE_AFTER_TEXT: Final = "A coordination worker is asked about a wait that lasts so long. `0s`: never."


def priorities(headroom: Mapping[HeadroomClass, float]) -> dict[int, float]:
    """Return parts by class, as the state machine has classes: by number."""
    return {_PRIORITIES[name]: part for name, part in headroom.items()}


class Section(BaseModel):
    """A table of the file. Strict: a wrong type is refused, not converted. `_ns` is ours, not the file's."""

    model_config = ConfigDict(
        alias_generator=lambda field: field.removesuffix("_ns"),
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        strict=True,
    )
