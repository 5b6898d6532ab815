"""A simulation's figures as tables and a plot, for people."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from rich.text import Text

from coordd.cli.duration import format_duration
from coordd.cli.printer import Column, Listing, Printer, View
from coordd.cli.words import counted
from coordd.core.limits import SECOND
from coordd.planning.plot import plot
from coordd.planning.report import Figures, Refusals, Resource, Waits, Window

__all__ = ["show"]

Row = TypeVar("Row")
_NONE = "-"
# A table on a terminal brings its own empty lines.
_SPACE: tuple[Text, ...] = () if sys.stdout.isatty() else (Text(),)


def show(figures: Mapping[str, Figures]) -> None:
    """Print the tables, those of several runs in one, and the plot.

    Args: figures: by the name of the run.
    """
    printer = Printer(as_json=False)
    for name, each in figures.items():
        printer.view(_headline(each, name if len(figures) > 1 else ""))
    for rows, columns in _tables(figures):
        if rows:
            shown = columns if len(figures) > 1 else columns[1:]
            printer.view(*_SPACE, Listing(rows, shown))
    for name, each in figures.items():
        for view in _curve(each, name if len(figures) > 1 else ""):
            printer.view(view)


def _headline(figures: Figures, name: str) -> View:
    totals = figures.totals
    begins = f" from {totals.begins}" if totals.begins else ""
    unended = f", {totals.unended:,} not ended" if totals.unended else ""
    return Text(
        f"{name}{': ' if name else ''}{counted(totals.demands, 'demand')}, "
        f"{counted(totals.workers, 'worker')}, {_length(totals.seconds)}{begins}: "
        f"{counted(totals.attempts, 'attempt')}, {totals.granted:,} granted, {totals.refused:,} refused"
        f"{unended}"
    )


def _tables(figures: Mapping[str, Figures]) -> Iterator[tuple[Sequence[Any], Sequence[Column[Any]]]]:
    yield _rows(figures, lambda each: each.waits), _WAITS
    yield _rows(figures, _windows), _WINDOWS
    yield _rows(figures, lambda each: each.resources), _RESOURCES
    yield _rows(figures, lambda each: each.refusals), _REFUSALS
    yield list(figures.items()), _WORKERS


def _rows(
    figures: Mapping[str, Figures], rows_of: Callable[[Figures], Sequence[Row]]
) -> list[tuple[str, Row]]:
    """Return (run, row), what belongs together side by side."""
    rows = [(name, index, row) for name, each in figures.items() for index, row in enumerate(rows_of(each))]
    order = list(figures)
    return [(name, row) for name, _, row in sorted(rows, key=lambda of: (of[1], order.index(of[0])))]


def _windows(figures: Figures) -> list[tuple[Resource, Window]]:
    return [(resource, window) for resource in figures.resources for window in resource.windows]


def _length(seconds: float | None) -> str:
    return _NONE if seconds is None else format_duration(round(seconds * SECOND))


def _part(part: float | None) -> str:
    return _NONE if part is None else f"{part:.1%}"


def _index(jain: float | None) -> str:
    return _NONE if jain is None else f"{jain:.3f}"


_RUN: Column[tuple[str, Any]] = Column("run", lambda row: row[0])
_WAITS: Sequence[Column[tuple[str, Waits]]] = (
    _RUN,
    Column("class", lambda row: row[1].priority),
    Column("attempts", lambda row: f"{row[1].attempts:,}", right=True),
    Column("granted", lambda row: f"{row[1].granted:,}", right=True),
    Column("wait p50", lambda row: _length(row[1].p50_s), right=True),
    Column("p90", lambda row: _length(row[1].p90_s), right=True),
    Column("p99", lambda row: _length(row[1].p99_s), right=True),
    Column("max", lambda row: _length(row[1].max_s), right=True),
)
_WINDOWS: Sequence[Column[tuple[str, tuple[Resource, Window]]]] = (
    _RUN,
    Column("limit or pool", lambda row: row[1][0].name),
    Column("window", lambda row: row[1][1].window or "held"),
    Column("limit", lambda row: f"{row[1][1].limit:,}", right=True),
    Column("peak", lambda row: f"{row[1][1].peak:,}", right=True),
    Column("used while waited for", lambda row: _part(row[1][1].utilisation_waited), right=True),
    Column("used in all", lambda row: _part(row[1][1].utilisation), right=True),
)
_RESOURCES: Sequence[Column[tuple[str, Resource]]] = (
    _RUN,
    Column("limit or pool", lambda row: row[1].name),
    Column("used", lambda row: f"{row[1].used:,}", right=True),
    Column("given back", lambda row: f"{row[1].unused:,}", right=True),
    Column("waited for", lambda row: _length(row[1].waited_s), right=True),
    Column("Jain index", lambda row: _index(row[1].jain), right=True),
)
_REFUSALS: Sequence[Column[tuple[str, Refusals]]] = (
    _RUN,
    Column("refused", lambda row: row[1].reason),
    Column("asking for", lambda row: row[1].what or _NONE),
    Column("attempts", lambda row: f"{row[1].count:,}", right=True),
)
_WORKERS: Sequence[Column[tuple[str, Figures]]] = (
    _RUN,
    Column("workers", lambda row: f"{len(row[1].workers):,}", right=True),
    Column("granted: least", lambda row: f"{min(each.granted for each in row[1].workers):,}", right=True),
    Column("most", lambda row: f"{max(each.granted for each in row[1].workers):,}", right=True),
    Column("Jain index", lambda row: _index(row[1].jain), right=True),
)


def _curve(figures: Figures, name: str) -> Iterator[View]:
    """Yield the plot of who waits, unless nobody does."""
    if not figures.waiting.max:
        yield Text(f"\n{name}{': ' if name else ''}nobody waited")
        return
    text = plot(figures, width=shutil.get_terminal_size((100, 0)).columns, title=name)
    if _can_show(text):
        yield Text("\n" + text)


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
