"""Traces of demands: CSV with a header, JSON lines, and the sample of support tweets as it is.

Owns: the formats, and that every malformed line is told with its number. Must not know: what becomes of a
demand.

A line has

    time       when it is demanded: RFC 3339, or seconds (from any beginning); one form throughout a file
    worker     who: a name, '*' for every worker of the fleet, empty for each of them in turn
    what       what is demanded; see `demands`
    priority   low, medium (as if empty), high or critical
    count      permits, for claims of permits that don't say (1)
    units      units, for claims of units that don't say
    hold       how long it works with what it has got: "500ms", "1m30s"; empty: as the run says
    class      the class of workers that a named worker belongs to, for its weight

Only `time` and `what` are required. Lines that are out of order are put in order; those of the same time stay
as they are.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from coordd.config import parse_length
from coordd.core.limits import DAY, HOUR, SECOND, UNITS_MAX, WORKER_BYTES_MAX
from coordd.core.rules import MEDIUM, Rules
from coordd.planning.demands import (
    ANY_WORKER,
    CLASSES,
    EVERY_WORKER,
    Demand,
    LockClaim,
    PermitClaim,
    impossibility,
    read_steps,
    read_text,
)

__all__ = ["Trace", "TraceError", "read_trace"]

FIELDS: Final = ("time", "worker", "what", "priority", "count", "units", "hold", "class")
# The columns of examples/support_tweets.csv. Each customer's tweet is to be answered, and every worker of the
# fleet sees it.
TWEET_FIELDS: Final = ("created_at", "tweet_id", "author", "role", "in_reply_to")
TWEET_KIND: Final = "reply"
TWEET_ENDPOINT: Final = "post_tweet"
# Whoever has a thousand wrong lines has one mistake.
PROBLEMS_MAX: Final = 20
# A line is a demand in memory for the whole run, a few hundred bytes.
LINES_MAX: Final = 1_000_000
# Longer than any use, shorter than the longest lease.
HOLD_NS_MAX: Final = 12 * HOUR
# Where seconds are counted from. Not 0: an instant before the windows' first bucket does not exist.
_BEGINNING_NS: Final = 366 * DAY
_SECONDS_MAX: Final = 4_000_000_000

_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.(?P<fraction>\d{1,9}))?(?:[Zz]|[+-]\d\d:\d\d)"
)


class TraceError(Exception):
    """The trace is refused. `problems`: one line each, with file, line and reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Trace(Struct, frozen=True, kw_only=True):
    """Demands in order of time.

    `is_dated`: its times are instants, not seconds. `unordered`: lines that came before an earlier one.
    """

    demands: tuple[Demand, ...]
    is_dated: bool
    unordered: int


def read_trace(path: Path, rules: Rules) -> Trace:
    """Read a trace and check it against the rules. Raises: TraceError with all problems (the first 20)."""
    reader = _Reader(path, rules)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            demands = list(reader.read(file))
    except OSError as error:
        raise TraceError([f"{path}: can't be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise TraceError([f"{path}: is not UTF-8: {error.reason} at byte {error.start}"]) from error
    except csv.Error as error:
        raise TraceError([f"{path}: is not CSV: {error}"]) from error
    if reader.problems:
        raise TraceError(reader.problems)
    if not demands:
        raise TraceError([f"{path}: has no demands"])
    unordered = sum(later.at_ns < demand.at_ns for demand, later in pairwise(demands))
    demands.sort(key=lambda demand: demand.at_ns)
    return Trace(demands=tuple(demands), is_dated=reader.times.is_dated is True, unordered=unordered)


class _Times:
    """Reads times, all of one form."""

    def __init__(self) -> None:
        self.is_dated: bool | None = None

    def read(self, value: object) -> int:
        """Return ns since the epoch. Raises: ValueError."""
        match = _RFC_3339.fullmatch(value.strip()) if isinstance(value, str) else None
        if self.is_dated is not None and self.is_dated is (match is None):
            raise ValueError(f"time {value!r} is of another form than those before")
        at_ns = _instant(match) if match is not None else _BEGINNING_NS + _seconds(value)
        self.is_dated = match is not None
        return at_ns


def _instant(match: re.Match[str]) -> int:
    text = match[0].upper().replace(" ", "T")
    # By hand below the microsecond, which is where datetime ends.
    fraction = match["fraction"] or ""
    whole = datetime.fromisoformat(text.replace(f".{fraction}", "", 1) if fraction else text)
    at_ns = int(whole.timestamp()) * SECOND + int(fraction.ljust(9, "0"))
    if at_ns < DAY:
        raise ValueError(f"time {match[0]} is before 1970-01-02")
    return at_ns


def _seconds(value: object) -> int:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = math.nan
    if isinstance(value, bool) or not 0 <= seconds <= _SECONDS_MAX:
        raise ValueError(
            f"time {value!r} is neither RFC 3339, as 2017-10-31T22:00:00Z, nor seconds from 0 on"
        )
    return round(seconds * SECOND)


class _Reader:
    """Makes demands of a file's lines, and notes what is wrong with the others."""

    def __init__(self, path: Path, rules: Rules) -> None:
        self.problems: list[str] = []
        self.times = _Times()
        self._path = path
        self._rules = rules

    def read(self, lines: Iterable[str]) -> Iterator[Demand]:
        """Yield the demands; `problems` has the rest."""
        lines = iter(lines)
        first = next(lines, "")
        rows = _json_rows if first.lstrip().startswith("{") else self._csv_rows
        made = 0
        for line, make, row in rows(_chained(first, lines)):
            demand = self._attempt(line, make, row)
            if len(self.problems) > PROBLEMS_MAX:
                self.problems[-1] = f"{self._path}: there may be more; these are the first {PROBLEMS_MAX}"
                return
            if demand is not None:
                made += 1
                if made > LINES_MAX:
                    self.problems.append(f"{self._path}: has more than {LINES_MAX:,} demands")
                    return
                yield demand

    def _attempt(self, line: int, make: "_Make", row: object) -> Demand | None:
        try:
            demand = make(line, row, self.times)
            if demand is not None and (reason := impossibility(demand, self._rules)):
                raise ValueError(reason)
        except ValueError as error:
            self.problems.append(f"{self._path}:{line}: {error}")
            return None
        return demand

    def _csv_rows(self, lines: Iterator[str]) -> Iterator[tuple[int, "_Make", object]]:
        reader = csv.reader(lines)
        header = tuple(name.strip() for name in next(reader, ()))
        if not header:
            return
        make = _of_tweet if header == TWEET_FIELDS else _of_fields
        if make is _of_fields and (reason := _header_problem(header)):
            self.problems.append(f"{self._path}:1: {reason}")
            return
        for cells in reader:
            if cells:
                yield reader.line_num, make, (header, cells)


# Makes a demand of (line number, row, times), or None where the line is none.
_Make = Callable[[int, Any, _Times], Demand | None]


def _chained(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _json_rows(lines: Iterator[str]) -> Iterator[tuple[int, _Make, object]]:
    for line, text in enumerate(lines, 1):
        if text.strip():
            yield line, _of_json, text


def _header_problem(header: tuple[str, ...]) -> str | None:
    missing = [name for name in ("time", "what") if name not in header]
    if missing:
        return f"the header has no column {missing[0]!r}; the columns are: {', '.join(FIELDS)}"
    return next((_unknown_field(name) for name in header if name not in FIELDS), None) or (
        None if len(set(header)) == len(header) else "the header names a column twice"
    )


def _unknown_field(name: str) -> str:
    return f"unknown field {name!r}; there are: {', '.join(FIELDS)}"


def _named(header: tuple[str, ...], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise ValueError(f"has {len(cells)} columns, and the header {len(header)}")
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def _of_json(line: int, text: str, times: _Times) -> Demand:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError("is not a JSON object")
    return _demand(line, fields, times)


def _of_fields(line: int, row: tuple[tuple[str, ...], list[str]], times: _Times) -> Demand:
    return _demand(line, _named(*row), times)


def _of_tweet(line: int, row: tuple[tuple[str, ...], list[str]], times: _Times) -> Demand | None:
    fields = _named(*row)
    at_ns = times.read(fields["created_at"])
    if fields["role"] != "customer":
        return None
    item = read_text(f"tweet:{fields['tweet_id']}", "a tweet_id", 64)
    steps = ((LockClaim(TWEET_KIND, item), PermitClaim(TWEET_ENDPOINT)),)
    return Demand(line=line, at_ns=at_ns, worker=EVERY_WORKER, steps=steps)


def _demand(line: int, fields: Mapping[str, object], times: _Times) -> Demand:
    unknown = next((name for name in fields if name not in FIELDS), None)
    if unknown is not None:
        raise ValueError(_unknown_field(unknown))
    for name in ("time", "what"):
        if fields.get(name) in (None, ""):
            raise ValueError(f"{name!r} is missing")
    worker, worker_class = _text(fields, "worker"), _text(fields, "class")
    if worker_class and worker in (ANY_WORKER, EVERY_WORKER):
        raise ValueError("class goes with a named worker only")
    return Demand(
        line=line,
        at_ns=times.read(fields["time"]),
        worker=read_text(worker, "a worker", WORKER_BYTES_MAX) if worker else ANY_WORKER,
        steps=read_steps(
            _text(fields, "what"), count=_count(fields, "count") or 1, units=_count(fields, "units")
        ),
        priority=_priority(_text(fields, "priority")),
        hold_ns=_hold_ns(_text(fields, "hold")),
        worker_class=worker_class,
    )


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} {value!r} is not a text")
    return value or ""


def _count(fields: Mapping[str, object], name: str) -> int:
    value = fields.get(name)
    if value is None or value == "":
        return 0
    text = str(value)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= UNITS_MAX:
        raise ValueError(f"{name} {value!r} is not a number from 1 to {UNITS_MAX}")
    return int(text)


def _priority(text: str) -> int:
    if not text:
        return MEDIUM
    priority = CLASSES.get(text.lower())
    if priority is None:
        raise ValueError(f"priority {text!r} is none of {', '.join(CLASSES)}")
    return priority


def _hold_ns(text: str) -> int | None:
    if not text:
        return None
    hold_ns = parse_length(text)
    if hold_ns > HOLD_NS_MAX:
        raise ValueError(f"hold {text} is longer than 12h")
    return hold_ns
