"""The figures, made from all logs, and the table that shows them.

tweets          customers' tweets replayed
replies         replies that upstream accepted
duplicates      those of them that were not the first to their tweet, by upstream's count
upstream_429    calls that upstream refused, by its count
unknown         tweets whose holder was killed when it may have answered; nobody answered them again
lock_wait_ms    from the call to the grant, less the time in which only the endpoint blocked it, of every
                bundle that led to a call upstream
permit_wait_ms  the time in which only the endpoint blocked it, of the same
critical_wait_ms, low_wait_ms  with two classes: from the call to the grant, and the `replies` of each class
critical_to_low the p99 of the former as a part of the p99 of the latter
utilisation     of the binding window while there was demand, the daemon's downtime included; what this
                means exactly is in `audit.utilisation`
seconds         from the start of this program to its end
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from examples.demo import audit
from examples.demo.journal import Entry, Event
from examples.demo.settings import WINDOWS
from examples.demo.tweets import Tweet


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is left when all workers have ended."""

    tweets: Sequence[Tweet]
    start_s: float
    down_s: tuple[float, float]
    counts: dict[str, int]
    arrivals: Sequence[audit.Arrival]
    journal: Sequence[Entry]
    history: audit.History


@dataclass(frozen=True, kw_only=True)
class Report:
    """The figures, and what should not be so."""

    figures: dict[str, object]
    remarks: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]


def report(evidence: Evidence, *, workers: int, is_by_class: bool, seconds: float) -> Report:
    """Work out the figures from the evidence."""
    verdict = audit.judge(evidence.tweets, evidence.arrivals, evidence.journal, evidence.history)
    accepted_s = {a.tweet_id: a.at_s for a in evidence.arrivals if a.status == 201}
    arrived_s = [evidence.start_s + t.arrives_s for t in evidence.tweets if t.tweet_id in accepted_s]
    used = [
        audit.utilisation(
            arrived_s, list(accepted_s.values()), window, backlog_min=workers, down=evidence.down_s
        )
        for window in WINDOWS.items()
    ]
    binding = max(used, key=lambda window: window.fill)
    posting = [entry for entry in evidence.journal if entry.event is Event.POSTING]
    figures: dict[str, object] = {
        "tweets": len(evidence.tweets),
        "replies": evidence.counts["accepted"],
        "duplicates": evidence.counts["duplicates"],
        "upstream_429": evidence.counts["refused_429"],
        "unknown": len(verdict.unknown),
        "lock_wait_ms": audit.percentiles([entry.lock_wait_ms for entry in posting]),
        "permit_wait_ms": audit.percentiles([entry.permit_wait_ms for entry in posting]),
        **(_by_class(posting) if is_by_class else {}),
        "utilisation": round(binding.fill, 4),
        "seconds": round(seconds, 1),
    }
    ideal_s = audit.ideal_finish_s([tweet.arrives_s for tweet in evidence.tweets], WINDOWS)
    remarks = (
        *((f"fullest {w.window_s} s window", f"{w.peak} of {WINDOWS[w.window_s]} calls") for w in used),
        ("binding window", f"{binding.window_s} s; there was demand for {binding.demand_s:.1f} s"),
        ("utilisation without the daemon's downtime", f"{binding.fill_up:.4f}"),
        ("daemon's downtime", f"{evidence.down_s[1] - evidence.down_s[0]:.2f} s"),
        ("replay", f"{max(accepted_s.values()) - evidence.start_s:.1f} s; a perfect caller: {ideal_s:.1f} s"),
    )
    return Report(figures=figures, remarks=remarks, problems=verdict.problems)


def _by_class(posting: Sequence[Entry]) -> dict[str, object]:
    critical, low = (
        [entry.lock_wait_ms + entry.permit_wait_ms for entry in posting if entry.is_urgent is is_urgent]
        for is_urgent in (True, False)
    )
    of_critical, of_low = audit.percentiles(critical), audit.percentiles(low)
    return {
        "critical_wait_ms": {"replies": len(critical), **of_critical},
        "low_wait_ms": {"replies": len(low), **of_low},
        "critical_to_low": round(of_critical["p99"] / of_low["p99"], 3) if of_low["p99"] else 0.0,
    }


def show_report(result: Report) -> None:
    """Print the table, what is wrong if anything is, and the figures as the last line."""
    table = Table(title="What upstream, the daemon and the workers say", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in (*result.figures.items(), *result.remarks):
        table.add_row(name, _words(value))
    console = Console(highlight=False)
    console.print(table)
    for problem in result.problems:
        console.print(f"FAILED: {problem}", markup=False)
    print(json.dumps(result.figures), flush=True)


def _words(value: object) -> str:
    return "  ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
