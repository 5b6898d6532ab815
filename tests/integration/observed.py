"""A daemon under observation: what it is asked, and what a scrape says of it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from daemon_api import Api, TimeSource
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from coordd.server import Daemon

METRICS = """
[metrics]
address = "127.0.0.1:0"
"""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


async def ask(address: str, request: bytes) -> Reply:
    """Send bytes to a metrics endpoint; return what it answers until it closes."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    pairs = (header.split(": ", 1) for header in headers)
    return Reply(int(status.split()[1]), {name.lower(): value for name, value in pairs}, body)


async def get(address: str, path: str = "/metrics", **headers: str) -> Reply:
    """Ask as Prometheus does."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {address}",
        *(f"{key}: {value}" for key, value in headers.items()),
    ]
    return await ask(address, "\r\n".join([*lines, "", ""]).encode())


async def samples(address: str) -> list[Sample]:
    """Scrape, and return every sample."""
    reply = await get(address)
    assert reply.status == 200, reply
    return [
        sample for family in text_string_to_metric_families(reply.body.decode()) for sample in family.samples
    ]


def spelled(sample: Sample, hidden: frozenset[str] = frozenset({"namespace"})) -> str:
    """Return a sample's name and labels in one word, as `calls_total{OK,RequestLock}`."""
    values = [value for key, value in sorted(sample.labels.items()) if key not in hidden]
    name = sample.name.removeprefix("coordd_")
    return f"{name}{{{','.join(values)}}}" if values else name


@dataclass(frozen=True)
class Observed:
    daemon: Daemon
    api: Api
    time: TimeSource

    async def scrape(self) -> dict[str, float]:
        """Return what is not 0 of our own metrics, bounds of histograms left out."""
        return {
            spelled(sample): sample.value
            for sample in await samples(self.daemon.telemetry.metrics_address)
            if sample.name.startswith("coordd_") and sample.value and "le" not in sample.labels
        }
