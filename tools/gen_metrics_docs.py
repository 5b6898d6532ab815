"""Turns coordd/telemetry/catalogue.py into docs/metrics.md.

Usage: gen_metrics_docs.py >docs/metrics.md
Equal input gives equal output, for `make gen-check` compares.
"""

from itertools import groupby
from typing import Final

from coordd.telemetry.catalogue import GROUPS
from coordd.telemetry.instruments import Metric

_HEAD: Final = """\
<!-- Generated from coordd/telemetry/catalogue.py by `make gen`; edit the meanings there. -->

# Metrics

`[metrics] address = "127.0.0.1:9464"` shows these at `/metrics` there, in Prometheus's text form or, if
asked, OpenMetrics. How to operate with them, alerts and the dashboard: [observability.md](observability.md).

Labels name what the configuration names and what the code does, never items, workers or ids: the number of
series does not grow with the fleet. A series with such labels appears when it is first counted; only the `OK`
calls of every method are there from the start. Counters begin at 0 with each start of the daemon. A histogram
has `_bucket`, `_sum` and `_count`. Besides these there are `process_*` (CPU, memory, file descriptors, start
time; Linux only), `python_gc_*` and `python_info`, as prometheus-client has them.
"""


def main() -> None:
    """Print the page."""
    print(_HEAD)
    for title, groups in groupby(GROUPS, key=lambda group: group.title):
        print(f"## {title}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|")
        for metric in (metric for group in groups for metric in group.metrics):
            print(_row(metric))
        print()


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


if __name__ == "__main__":
    main()
