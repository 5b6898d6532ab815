"""Traces: from a client's call through the daemon's decision to its commit, and over OTLP to a receiver."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import DEADLINE_S, DaemonProcess, launch
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from coordd.config import load
from coordd.server import Daemon
from coordd_client import Client, InvalidRequest, blocking

TRACED = "\n[traces]\notlp = true\n"
SERVICE = "coordd.v1.EngagementService"


def provider() -> tuple[TracerProvider, InMemorySpanExporter]:
    made, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made, exporter


class Spans:
    """What was traced, once the calls have ended."""

    def __init__(self, *exporters: InMemorySpanExporter) -> None:
        self.all = [span for exporter in exporters for span in exporter.get_finished_spans()]

    def named(self, name: str, kind: SpanKind | None = None) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name and kind in (None, span.kind)]

    def one(self, name: str, kind: SpanKind | None = None) -> ReadableSpan:
        [span] = self.named(name, kind)
        return span


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def parent_of(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent is not None else 0


def links_of(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def said(span: ReadableSpan, *names: str) -> Sequence[Any]:
    assert span.attributes is not None
    return [span.attributes.get(name) for name in names]


@dataclass
class Traced:
    """A daemon that traces into memory."""

    daemon: Daemon
    exporter: InMemorySpanExporter

    async def spans(self, *clients: InMemorySpanExporter) -> Spans:
        """Return all spans, once no call is under way: a span ends after its answer has left."""
        await self.daemon.stop(DEADLINE_S)
        return Spans(self.exporter, *clients)


@pytest.fixture
async def traced(config: Path) -> Traced:
    ours, exporter = provider()
    daemon = Daemon(load(config, {}), traces=ours)
    await daemon.start()
    return Traced(daemon, exporter)


async def test_a_call_is_one_trace_from_the_client_through_the_commit(traced: Traced) -> None:
    theirs, exporter = provider()
    async with (
        Client(traced.daemon.address, worker="w1", traces=theirs) as client,
        client.lock("i", kind="analysis"),
    ):
        pass
    spans = await traced.spans(exporter)
    asking = spans.one(f"{SERVICE}/RequestLock", SpanKind.CLIENT)
    serving = spans.one(f"{SERVICE}/RequestLock", SpanKind.SERVER)
    decision = spans.one("decide RequestLock")
    [commit] = [span for span in spans.named("commit") if parent_of(span) == id_of(decision)]
    assert [parent_of(span) for span in (asking, serving, decision)] == [0, id_of(asking), id_of(serving)]
    assert len({span.context.trace_id for span in (asking, serving, decision, commit) if span.context}) == 1
    assert links_of(serving) == [id_of(commit)]
    assert said(decision, "coordd.command", "coordd.outcome", "coordd.namespace") == [
        "RequestLock",
        "Granted",
        "default",
    ]
    assert said(commit, "coordd.commands", "coordd.records") == [1, 1]
    assert said(commit, "coordd.batch") == said(decision, "coordd.batch")
    for span in (asking, serving):
        assert said(span, "rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code") == [
            "grpc",
            SERVICE,
            "RequestLock",
            0,
        ]
    assert decision.start_time <= commit.start_time <= commit.end_time <= decision.end_time  # type: ignore[operator]


async def test_the_blocking_client_traces_alike(traced: Traced) -> None:
    theirs, exporter = provider()

    def work() -> None:
        with (
            blocking.Client(traced.daemon.address, worker="w1", traces=theirs) as client,
            client.lock("i", kind="analysis"),
        ):
            pass

    await asyncio.to_thread(work)
    spans = await traced.spans(exporter)
    for method in ("RequestLock", "ReleaseLock"):
        asking = spans.one(f"{SERVICE}/{method}", SpanKind.CLIENT)
        assert parent_of(spans.one(f"{SERVICE}/{method}", SpanKind.SERVER)) == id_of(asking)


async def test_a_wait_is_a_span_of_its_own_and_links_both_commits(traced: Traced) -> None:
    theirs, exporter = provider()
    is_queued = asyncio.Event()
    async with (
        Client(traced.daemon.address, worker="w1") as first,
        Client(traced.daemon.address, worker="w2", traces=theirs) as second,
    ):

        async def wait() -> None:
            async with second.lock(
                "i", kind="analysis", wait=DEADLINE_S, on_queued=lambda _: is_queued.set()
            ):
                pass

        async with first.lock("i", kind="analysis"):
            waiting = asyncio.create_task(wait())
            await is_queued.wait()
        await waiting
    spans = await traced.spans(exporter)
    asking = spans.one(f"{SERVICE}/AwaitLock", SpanKind.CLIENT)
    serving = spans.one(f"{SERVICE}/AwaitLock", SpanKind.SERVER)
    waited = spans.one("wait RequestLock")
    assert asking.status.status_code is StatusCode.UNSET
    assert parent_of(serving) == id_of(asking)
    assert parent_of(waited) == id_of(serving)
    assert said(waited, "coordd.outcome", "coordd.blocked_by") == ["Granted", "HELD"]
    commits = {id_of(span): said(span, "coordd.batch") for span in spans.named("commit")}
    decision = spans.named("decide RequestLock")[-1]
    assert said(decision, "coordd.outcome") == ["Queued"]
    assert [commits[link] for link in links_of(serving)] == [
        said(span, "coordd.batch") for span in (decision, waited) if said(span, "coordd.batch") != [0]
    ]
    assert links_of(serving)


async def test_what_fails_is_an_error_to_its_client_and_not_to_the_daemon(traced: Traced) -> None:
    theirs, exporter = provider()
    async with Client(traced.daemon.address, worker="w1", traces=theirs) as client:
        with pytest.raises(InvalidRequest):
            await client.remaining_capacity("nothing")
    spans = await traced.spans(exporter)
    name = "coordd.v1.RateLimitService/GetRemainingCapacity"
    asking, serving = spans.one(name, SpanKind.CLIENT), spans.one(name, SpanKind.SERVER)
    assert asking.status.status_code is StatusCode.ERROR
    assert serving.status.status_code is StatusCode.UNSET
    assert said(serving, "rpc.grpc.status_code", "coordd.reason") == [3, "UNKNOWN_ENDPOINT"]
    assert said(asking, "rpc.grpc.status_code") == [3]


async def test_many_calls_share_the_span_of_their_commit(traced: Traced) -> None:
    theirs, exporter = provider()

    async def lock(client: Client, number: int) -> None:
        async with client.lock(f"i{number}", kind="analysis"):
            pass

    async with Client(traced.daemon.address, worker="w1", traces=theirs) as client:
        await asyncio.gather(*(lock(client, number) for number in range(40)))
    spans = await traced.spans(exporter)
    commits = {id_of(span): span for span in spans.named("commit")}
    batches = [said(span, "coordd.batch")[0] for span in commits.values()]
    assert len(set(batches)) == len(batches), "a batch has several spans"
    serving = [span for span in spans.all if span.kind is SpanKind.SERVER]
    assert len(serving) == 80
    for span in serving:
        [link] = links_of(span)
        assert link in commits
    assert sum(int(said(span, "coordd.commands")[0]) for span in commits.values()) == 80


async def test_a_trace_that_is_not_sampled_leaves_nothing(traced: Traced) -> None:
    silent = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    async with (
        Client(traced.daemon.address, worker="w1", traces=silent) as client,
        client.lock("i", kind="analysis"),
    ):
        pass
    assert (await traced.spans()).all == []


@pytest.mark.parametrize("module", ["coordd.server", "coordd_client", "coordd_client.blocking"])
def test_nothing_of_it_is_imported_while_it_is_off(module: str) -> None:
    code = f"import {module}, sys; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- over OTLP -----------------------------------------------------------------------------------------------


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """A collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.add(named["service.name"])
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


async def test_spans_reach_a_collector_that_the_environment_names(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, server = Receiver(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "fleet-a")
    logged = '[log]\nlevel = "debug"\nformat = "json"\n'
    config.write_text(config.read_text() + TRACED + logged)  # noqa: ASYNC240
    process = await DaemonProcess.start(config)
    async with Client(process.address, worker="w1") as client, client.lock("i", kind="analysis"):
        pass
    code, errors = await process.stop()
    await server.stop(0)
    assert (code, "Traceback" in errors) == (0, False), errors
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["trace_id"] for line in lines if line["event"] == "call"] == [
        span.trace_id.hex() for span in receiver.spans if span.name.startswith(SERVICE)
    ]
    assert receiver.services == {"fleet-a"}
    names = {span.name for span in receiver.spans}
    assert {f"{SERVICE}/RequestLock", "decide RequestLock", "commit", "decide ReleaseLock"} <= names


async def test_a_collector_that_is_gone_keeps_nobody(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    config.write_text(config.read_text() + TRACED)  # noqa: ASYNC240
    process = await DaemonProcess.start(config)
    async with Client(process.address, worker="w1") as client, client.lock("i", kind="analysis"):
        pass
    assert (await process.stop())[0] == 0


async def test_without_the_extra_it_says_what_to_install(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "absent" / "opentelemetry"
    absent.mkdir(parents=True)
    (absent / "__init__.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(str(absent.parent))
    monkeypatch.setenv("PYTHONPATH", f"{absent.parent}:{':'.join(sys.path)}")
    config.write_text(config.read_text() + TRACED)  # noqa: ASYNC240
    process = await launch(config)
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert "[traces] needs OpenTelemetry: install coordd[otel]" in errors.decode()
