"""What an examination of a data file has found, for people."""

import time
from collections.abc import Iterator

from rich.text import Text

from coordd.cli.printer import Printer
from coordd.cli.words import counted, printable
from coordd.core.limits import SECOND
from coordd.doctor import Finding, Gravity, Report

__all__ = ["show"]

_STYLES = {Gravity.BROKEN: "bold red", Gravity.ODD: "bold yellow", Gravity.NOTE: "dim"}
_VERDICTS = {
    None: ("sound", "bold green"),
    Gravity.ODD: ("odd: a daemon serves it, but look at what is said below", "bold yellow"),
    Gravity.BROKEN: ("broken: do not start a daemon on it", "bold red"),
}


def show(report: Report, printer: Printer) -> None:
    """Print a report: the verdict, the facts, and each finding with its remedy."""
    printer.view(_headline(report), *_facts(report), *map(_told, report.findings))


def _headline(report: Report) -> Text:
    verdict, style = _VERDICTS[report.gravest]
    return Text(f"{printable(report.path)}: ").append(verdict, style)


def _facts(report: Report) -> Iterator[Text]:
    yield Text(f"owner    {f'process {report.owner}' if report.owner else 'nobody: no daemon serves it'}")
    size = f"{report.size_bytes:,} bytes, and {report.log_bytes:,} in its log"
    free = "" if report.pages_free is None else f"; {report.pages_free:,} of {report.pages:,} pages free"
    yield Text(f"size     {size}{free}")
    if report.format is not None:
        yield Text(f"format   {report.format} (this version: {report.format_newest})")
    if report.instant is not None:
        yield Text(f"last     batch {report.sequence}, at {_instant(report.instant)}, id {report.last_id}")
    if report.records:
        live = (f"{count:,} {name}" for name, count in report.records.items() if count)
        yield Text(f"records  {', '.join(live) or 'none'}")
    if report.history is not None and report.history.count:
        span = f"{_instant(report.history.first)} .. {_instant(report.history.last)}"
        yield Text(f"history  {counted(report.history.count, 'engagement')}, {span}")


def _told(finding: Finding) -> Text:
    line = Text().append(f"{finding.gravity.value:<7}", _STYLES[finding.gravity])
    line.append(f"  {finding.check}: {printable(finding.what)}")
    return line.append(f"\n         -> {printable(finding.remedy)}" if finding.remedy else "")


def _instant(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at // SECOND))
