"""Traces: a span for each call, its decision, its wait and its commit.

Owns: what is which span's child. A call's span continues the caller's trace (W3C `traceparent` in the
metadata). A commit belongs to every call that waited for it, and a span has but one parent: so it is a child
of the first of them that is traced, every call has a link to it, and one that nobody traced has waited for is
not shown. Where a trace is not sampled nothing is made of it.
Must not know: where spans go; that, and the sampling, is the provider's.
Imported only where traces are switched on: the rest works without OpenTelemetry.
"""

from typing import Final
from weakref import WeakValueDictionary

import grpc
from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import Span
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.util.types import Attributes
from structlog.contextvars import bind_contextvars

from coordd.core.commands import WaitableCommand
from coordd.core.machine import Command
from coordd.core.outcomes import Granted, Notice, Outcome, Place, Queued, Refused
from coordd.core.waiters import Waiter
from coordd.engine import Commit
from coordd.rpc import Call

# By OpenTelemetry's conventions for servers: the others are the caller's own doing.
_ERRORS: Final = frozenset({"UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
# Those who waited for a commit are answered before the next one can end.
_COMMITS_KEPT: Final = 16


class CallTraces:
    """See `coordd.rpc.CallObserver`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("coordd")

    def begun(self, call: Call) -> None:
        """See CallObserver."""
        parent = propagate.extract({key: value for key, value in call.metadata() if isinstance(value, str)})
        service, _, method = call.method[1:].partition("/")
        span = self._tracer.start_span(
            call.method[1:],
            context=parent,
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        )
        # For as long as the task lasts, and that is the call.
        contexts.attach(trace.set_span_in_context(span, parent))
        if span.is_recording():
            bind_contextvars(trace_id=trace.format_trace_id(span.get_span_context().trace_id))

    def ended(self, call: Call, took_ns: int) -> None:
        """See CallObserver."""
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[call.code].value[0])
            span.set_attribute("coordd.call_id", call.id)
            if call.reason:
                span.set_attribute("coordd.reason", call.reason)
            if call.code in _ERRORS:
                span.set_status(Status(StatusCode.ERROR, call.reason))
        span.end()


class EngineTraces:
    """See `coordd.engine.Observer` and `CommitObserver`; of one namespace."""

    def __init__(self, provider: TracerProvider, namespace: str) -> None:
        self._tracer: Tracer = provider.get_tracer("coordd")
        self._namespace = namespace
        # The last ones, by batch, and the spans of those of them that have one.
        self._commits: dict[int, Commit] = {}
        self._commit_spans: dict[int, SpanContext] = {}
        # The calls that wait, by waiter; one whose stream ends is forgotten with its span.
        self._waiting: WeakValueDictionary[int, Span] = WeakValueDictionary()

    def answered(self, command: Command, outcome: Outcome, *, asked_at: int, at: int, batch: int) -> None:
        """See Observer."""
        call = trace.get_current_span()
        if not isinstance(call, Span) or not call.is_recording():
            return
        name = command.__class__.__name__
        span = self._tracer.start_span(
            f"decide {name}",
            start_time=asked_at,
            attributes=self._attributes(command=name, outcome=outcome.__class__.__name__, batch=batch),
        )
        self._link(call, span, batch)
        span.end(end_time=at)
        if isinstance(outcome, Queued):
            self._waiting[outcome.id] = call

    def queued(self, command: WaitableCommand, place: Place) -> None:
        """See Observer."""

    def served(
        self, waiter: Waiter, final: Granted | Refused, *, first: Place | None, at: int, batch: int
    ) -> None:
        """See Observer."""
        call = self._waiting.pop(waiter.id, None)
        if call is None:
            return
        outcome = "Granted" if isinstance(final, Granted) else final.reason.name
        blocked_by = first.blocked_by.reason.name if first is not None else ""
        span = self._tracer.start_span(
            f"wait {waiter.command.__class__.__name__}",
            context=trace.set_span_in_context(call),
            # It may have begun in an earlier stream, and a child does not begin before its parent.
            start_time=max(waiter.enqueued_at, call.start_time or 0),
            attributes=self._attributes(outcome=outcome, blocked_by=blocked_by, batch=batch),
        )
        self._link(call, span, batch)
        span.end(end_time=at)

    def happened(self, notice: Notice, at: int) -> None:
        """See Observer."""

    def committed(self, commit: Commit) -> None:
        """See CommitObserver."""
        self._commits[commit.sequence] = commit
        if len(self._commits) > _COMMITS_KEPT:
            oldest = next(iter(self._commits))
            del self._commits[oldest]
            self._commit_spans.pop(oldest, None)

    # --------------------------------------------------------------------------------------------------------

    def _link(self, call: Span, decision: trace.Span, batch: int) -> None:
        """Link a call to the commit that it has waited for, if it has."""
        commit = self._commits.get(batch)
        if commit is None:
            return
        if batch not in self._commit_spans:
            self._commit_spans[batch] = self._commit_span(commit, decision)
        call.add_link(self._commit_spans[batch], {"coordd.link": "commit"})

    def _commit_span(self, commit: Commit, parent: trace.Span) -> SpanContext:
        span = self._tracer.start_span(
            "commit",
            context=trace.set_span_in_context(parent),
            start_time=commit.began_at,
            attributes=self._attributes(
                batch=commit.sequence, commands=commit.commands, records=commit.records
            ),
        )
        span.end(end_time=commit.ended_at)
        return span.get_span_context()

    def _attributes(self, **values: str | int) -> Attributes:
        named = {f"coordd.{name}": value for name, value in values.items()}
        return {"coordd.namespace": self._namespace, **named}
