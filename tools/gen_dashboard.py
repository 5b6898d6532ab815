"""Writes the Grafana dashboard.

Usage: gen_dashboard.py >deploy/grafana/coordd.json
Why not by hand: a dashboard is a thousand lines of which forty say something; these are they.
Equal input gives equal output, for `make gen-check` compares.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

_SELECTED: Final = 'instance=~"$instance"'
_IN: Final = 'instance=~"$instance",namespace=~"$namespace"'
# What may meet a conflict.
_MAY_CONFLICT: Final = f'{_IN},command=~"request_lock|reserve_resource|acquire_bundle"'
_COLUMNS: Final = 24
_HEIGHT: Final = 8


class Panel(NamedTuple):
    """A picture: each query with its legend."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    meaning: str = ""


def _rate(metric: str, by: str, where: str = _IN) -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def _sum(metric: str, where: str) -> str:
    return f"sum(rate({metric}{{{where}}}[$__rate_interval]))"


def _over(part: str, whole: str) -> str:
    return f"{part}{{{_IN}}} / {whole}{{{_IN}}}"


def _mean(metric: str) -> str:
    return f"{_rate(f'{metric}_sum', 'namespace')} / {_rate(f'{metric}_count', 'namespace')}"


def _quantiles(metric: str, by: str, where: str = _IN) -> tuple[tuple[str, str], ...]:
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", ")) if by else ""
    labels = f"le, {by}" if by else "le"
    return tuple(
        (
            f"histogram_quantile({quantile}, {_rate(f'{metric}_bucket', labels, where)})",
            f"{legend} p{round(quantile * 100)}".strip(),
        )
        for quantile in (0.5, 0.99)
    )


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Is it well?": (
        Panel(
            "Available",
            "short",
            (
                (f"coordd_serving{{{_SELECTED}}}", "{{instance}} serving"),
                (f"coordd_draining{{{_IN}}}", "{{namespace}} draining"),
                (f"coordd_store_failed{{{_IN}}}", "{{namespace}} store failed"),
            ),
            "Serving should be 1, the others 0.",
        ),
        Panel("Calls by status", "reqps", ((_rate("coordd_calls_total", "code", _SELECTED), "{{code}}"),)),
        Panel(
            "Failures by reason",
            "reqps",
            ((_rate("coordd_call_failures_total", "code, reason", _SELECTED), "{{code}} {{reason}}"),),
        ),
        Panel(
            "Slowest unary calls, p99",
            "s",
            (
                (
                    f"topk(10, {_quantiles('coordd_call_duration_seconds', 'method', _SELECTED)[1][0]})",
                    "{{method}}",
                ),
            ),
            "Within the daemon, the commit included.",
        ),
        Panel("Commits", "s", _quantiles("coordd_commit_duration_seconds", "namespace")),
        Panel("Event loop lag", "s", _quantiles("coordd_event_loop_lag_seconds", "", _SELECTED)),
    ),
    "What is decided": (
        Panel(
            "Decisions",
            "reqps",
            ((_rate("coordd_decisions_total", "command, outcome"), "{{command}} {{outcome}}"),),
        ),
        Panel(
            "Time to a grant",
            "s",
            _quantiles("coordd_acquisition_seconds", "component"),
            "From asking to the durable grant, with or without a wait.",
        ),
        Panel(
            "Refusals",
            "reqps",
            ((_rate("coordd_refusals_total", "component, reason"), "{{component}} {{reason}}"),),
        ),
        Panel(
            "Conflicts, part of what is asked",
            "percentunit",
            (
                (
                    _sum("coordd_conflicts_total", _IN)
                    + " / "
                    + _sum("coordd_decisions_total", _MAY_CONFLICT),
                    "conflicts",
                ),
            ),
        ),
        Panel(
            "Conflict resolution",
            "s",
            _quantiles("coordd_conflict_resolution_seconds", "component, resolution"),
        ),
        Panel("Escalations decided", "s", _quantiles("coordd_escalation_seconds", "decision")),
    ),
    "Who waits": (
        Panel(
            "Waiters",
            "short",
            (
                (f"sum by (component, class) (coordd_waiters{{{_IN}}})", "{{component}} {{class}}"),
                (f"sum(coordd_waiters_away{{{_IN}}})", "away"),
            ),
        ),
        Panel("Queue wait", "s", _quantiles("coordd_queue_wait_seconds", "component, class")),
        Panel(
            "Queued by endpoint and pool",
            "short",
            (
                (f"coordd_endpoint_queued{{{_IN}}}", "{{endpoint}}"),
                (f"coordd_pool_queued{{{_IN}}}", "{{pool}}"),
            ),
        ),
        Panel(
            "Open escalations, preemptions",
            "short",
            (
                (f"coordd_escalations{{{_IN}}}", "{{namespace}} open"),
                (
                    f"sum by (stage) (increase(coordd_preemptions_total{{{_IN}}}[$__rate_interval]))",
                    "{{stage}}",
                ),
            ),
        ),
    ),
    "Upstream": (
        Panel(
            "Rate-limit efficiency",
            "percentunit",
            ((f"coordd_endpoint_utilisation_ratio{{{_IN}}}", "{{endpoint}}"),),
            "Charges over limit of the window that binds.",
        ),
        Panel(
            "Windows",
            "percentunit",
            (
                (
                    _over("coordd_endpoint_window_used_permits", "coordd_endpoint_window_limit_permits"),
                    "{{endpoint}} {{window}}",
                ),
            ),
        ),
        Panel(
            "429s and gates",
            "short",
            (
                (
                    f"increase(coordd_endpoint_upstream_429s_total{{{_IN}}}[$__rate_interval])",
                    "{{endpoint}} 429s",
                ),
                (f'coordd_endpoint_gate{{{_IN},state!="open"}} == 1', "{{endpoint}} {{state}}"),
            ),
        ),
        Panel(
            "Scheduling error", "s", ((f"coordd_endpoint_scheduling_error_seconds{{{_IN}}}", "{{endpoint}}"),)
        ),
    ),
    "The fleet": (
        Panel(
            "Pool utilisation",
            "percentunit",
            ((_over("coordd_pool_used_units", "coordd_pool_capacity_units"), "{{pool}}"),),
        ),
        Panel(
            "Holdings",
            "short",
            tuple(
                (f"sum(coordd_{name}{{{_IN}}})", name)
                for name in ("locks", "reservations", "permits", "bookings", "bundles", "sessions")
            ),
        ),
        Panel(
            "Leases and sessions that ran out",
            "short",
            (
                (_rate("coordd_expiries_total", "component"), "{{component}}"),
                (_rate("coordd_session_expiries_total", "namespace"), "sessions"),
            ),
        ),
        Panel(
            "Active workers by endpoint",
            "short",
            ((f"coordd_endpoint_active_workers{{{_IN}}}", "{{endpoint}}"),),
        ),
    ),
    "The machine": (
        Panel(
            "CPU",
            "percentunit",
            ((f"rate(process_cpu_seconds_total{{{_SELECTED}}}[$__rate_interval])", "{{instance}}"),),
        ),
        Panel(
            "Admitted calls, and how many there may be",
            "short",
            (
                (f"coordd_admission_in_progress_calls{{{_SELECTED}}}", "{{instance}}"),
                (f"coordd_admission_limit_calls{{{_SELECTED}}}", "{{instance}} limit"),
            ),
        ),
        Panel(
            "Refused for overload",
            "reqps",
            ((_rate("coordd_admission_refusals_total", "instance", _SELECTED), "{{instance}}"),),
        ),
        Panel("Memory", "bytes", ((f"process_resident_memory_bytes{{{_SELECTED}}}", "{{instance}}"),)),
        Panel("Data file and log", "bytes", ((f"coordd_store_bytes{{{_IN}}}", "{{namespace}} {{file}}"),)),
        Panel(
            "Commands and records a commit",
            "short",
            tuple(
                (_mean(f"coordd_commit_{what}"), f"{{{{namespace}}}} {what}")
                for what in ("commands", "records")
            ),
        ),
    ),
}


def main() -> None:
    """Print the dashboard."""
    print(json.dumps(_dashboard(), indent=2))


def _dashboard() -> dict[str, Any]:
    return {
        "uid": "coordd",
        "title": "coordd",
        "description": "What coordd decides, how fast, and for whom. The metrics: docs/metrics.md.",
        "tags": ["coordd"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [_datasource(), _variable("instance", "up"), _variable("namespace", "coordd_locks")]
        },
        "panels": [*_panels()],
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _variable(label: str, metric: str) -> dict[str, Any]:
    chosen = 'up{job="coordd"}' if metric == "up" else metric
    return {
        "name": label,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": f"label_values({chosen}, {label})",
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "refresh": 2,
    }


def _panels() -> Iterator[dict[str, Any]]:
    y = number = 0
    for title, panels in ROWS.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        y += 1
        per_row = 3 if len(panels) % 3 == 0 else 2
        width = _COLUMNS // per_row
        for place, panel in enumerate(panels):
            number += 1
            yield _panel(
                number, panel, x=place % per_row * width, y=y + place // per_row * _HEIGHT, width=width
            )
        y += -(-len(panels) // per_row) * _HEIGHT


def _panel(number: int, panel: Panel, *, x: int, y: int, width: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.meaning,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": x, "y": y, "w": width, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expr, "legendFormat": legend}
            for place, (expr, legend) in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    main()
