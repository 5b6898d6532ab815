"""Where spans go: by OTLP to whatever the standard `OTEL_*` variables name.

Imported only where traces are switched on: the rest works without OpenTelemetry.
"""

import asyncio
import threading
from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

# What has not been sent by then is lost: a collector that is gone must not keep the daemon from stopping.
_LAST_S: Final = 2.0


def exporting_provider(version: str) -> TracerProvider:
    """Return a provider that sends spans, in batches and from another thread."""
    ours = Resource.create({"service.name": "coordd", "service.version": version})
    # Not at exit by itself: that would wait for a collector for as long as it likes.
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


async def shut_down(provider: TracerProvider) -> None:
    """Send what is left, for a while."""
    # In a thread that the process does not wait for.
    sender = threading.Thread(target=provider.shutdown, daemon=True)
    sender.start()
    await asyncio.to_thread(sender.join, _LAST_S)
