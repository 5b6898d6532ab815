"""What is shipped for Prometheus and Grafana names only what there is, and the real ones take it.

promtool and prometheus come with `make promtool`; where there are none, what needs them is skipped.
"""

import asyncio
import contextlib
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_api import BIN, DEADLINE_S
from observed import Observed, get

from coordd.telemetry.catalogue import METRICS

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
ALERT_TESTS = ROOT / "deploy" / "prometheus" / "alerts_test.yml"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "coordd.json").read_text("utf-8"))
# What Prometheus itself, or prometheus-client, adds.
FOREIGN = dict.fromkeys(
    (
        "up",
        "process_open_fds",
        "process_max_fds",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ),
    (),
)
TARGET_LABELS = {"instance", "job", "le"}


def tool(name: str) -> str:
    found = shutil.which(name, path=BIN) or shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on PATH; `make promtool` has it where apt does")
    return found


def promtool(*arguments: str, input_: bytes | None = None) -> str:
    done = subprocess.run(
        [tool("promtool"), *arguments], input=input_, capture_output=True, check=False, timeout=DEADLINE_S
    )
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    return output


def alerts() -> dict[str, str]:
    """Return the expression of every alert: promtool reads the rest of the file."""
    _, *rules = ALERTS.read_text("utf-8").split("- alert: ")
    return {
        rule.split()[0]: re.split(r"expr: |\n {8}(?:for|labels): ", rule)[1].lstrip("|") for rule in rules
    }


def queries() -> Iterator[tuple[str, str]]:
    """Yield every query of the dashboard, and every expression of the alerts, by where it stands."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    yield from alerts().items()


def metric_of(name: str) -> tuple[str, ...] | None:
    """Return the labels of a metric, or of a histogram's series; None: there is none of that name."""
    for suffix in ("_bucket", "_sum", "_count"):
        base = METRICS.get(name.removesuffix(suffix))
        if name.endswith(suffix) and base is not None and base.kind == "histogram":
            return base.labels
    return METRICS[name].labels if name in METRICS else FOREIGN.get(name)


NAMES = re.compile(r"\b((?:coordd_|process_)\w+|up)\b(?:\{([^}]*)\})?")
SELECTED = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
GROUPED = re.compile(r"\bby \(([^)]*)\)")


def problems(expression: str) -> list[str]:
    """Return which metrics and labels of an expression there are not."""
    found, known = [], set(TARGET_LABELS)
    for name, selector in NAMES.findall(expression):
        labels = metric_of(name)
        if labels is None:
            found.append(name)
            continue
        known |= set(labels)
        found += [
            f"{name}: {each}"
            for each in SELECTED.findall(selector)
            if each not in TARGET_LABELS | set(labels)
        ]
    grouped = {label.strip() for labels in GROUPED.findall(expression) for label in labels.split(",")}
    return found + sorted(grouped - known)


def test_what_names_too_much_is_seen() -> None:
    assert problems('rate(coordd_calls_total{code="OK",worker="w"}[5m])') == ["coordd_calls_total: worker"]
    assert problems("sum by (item) (coordd_lock)") == ["coordd_lock", "item"]
    assert problems("sum by (code) (coordd_locks_bucket)") == ["coordd_locks_bucket", "code"]


@pytest.mark.parametrize("place", sorted({place for place, _ in queries()}))
def test_queries_name_only_metrics_and_labels_there_are(place: str) -> None:
    for where, expression in queries():
        if where == place:
            assert NAMES.search(expression)
            assert problems(expression) == []


def test_legends_name_labels_of_their_queries() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            known = TARGET_LABELS.union(*(metric_of(name) or () for name, _ in NAMES.findall(target["expr"])))
            grouped = GROUPED.findall(target["expr"])
            if grouped:
                known = {label.strip() for labels in grouped for label in labels.split(",")}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= known, panel["title"]


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) == 23


def test_every_alert_is_tested_and_explained() -> None:
    fired = re.findall(r"alertname: (\w+)\n +exp_alerts:\n +- exp_labels", ALERT_TESTS.read_text("utf-8"))
    explained = re.findall(
        r"^\| `(Coordd\w+)` \|", (ROOT / "docs" / "observability.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(alerts()) > 15
    assert set(fired) == set(explained) == set(alerts())


def test_the_alert_rules_do_what_they_say() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(ALERTS))
    assert "SUCCESS" in promtool("test", "rules", str(ALERT_TESTS))


async def test_promtool_finds_nothing_to_say_of_the_metrics(observed: Observed) -> None:
    await observed.api.lock()
    await observed.api.permit()
    page = await get(observed.daemon.telemetry.metrics_address)
    assert (await asyncio.to_thread(promtool, "check", "metrics", input_=page.body)).strip() == ""


# -- the real Prometheus -------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prometheus:
    """The API of a Prometheus that runs."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def get(self, path: str, **parameters: str) -> Any:
        return (await self._http.get(f"/api/v1/{path}", params=parameters)).json()

    async def value(self, query: str) -> Any:
        """Return the result of a query."""
        answer = await self.get("query", query=query)
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    async def scraped(self) -> None:
        """Wait until it has scraped the daemon twice."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if await self.value("count_over_time(up[1m]) >= 2"):
                        return
                await asyncio.sleep(0.1)


async def test_the_real_prometheus_scrapes_and_answers_every_query(
    observed: Observed, tmp_path: Path
) -> None:
    prometheus, port = tool("prometheus"), free_port()
    address = observed.daemon.telemetry.metrics_address
    config = {
        "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms", "scrape_timeout": "200ms"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "coordd", "static_configs": [{"targets": [address]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        prometheus,
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await observed.api.lock()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S) as http:
            real = Prometheus(http)
            await real.scraped()
            for _, expression in queries():
                await real.value(
                    re.sub(r"\$(instance|namespace)", ".*", expression).replace("$__rate_interval", "1m")
                )
            rules = [rule for group in (await real.get("rules"))["data"]["groups"] for rule in group["rules"]]
            assert {rule["name"] for rule in rules} == set(alerts())
            assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
            assert [each["metric"]["instance"] for each in await real.value("up")] == [address]
            assert [each["value"][1] for each in await real.value("coordd_locks")] == ["1"]
    finally:
        process.terminate()
        await process.wait()
