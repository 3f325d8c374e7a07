"""Traces from a request to the stages of its job; off unless the environment names an exporter.

The gateway's spans are FastAPI's own. A job's row carries the W3C `traceparent` of the request that
created it, so that a worker on another machine, hours later, goes on with the same trace.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, Status, StatusCode

SWITCHES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_TRACES_EXPORTER",
)


class UnknownExporter(Exception):
    """OTEL_TRACES_EXPORTER may be `otlp`, `console` or `none`."""


def configure_traces(service: str, environment: Mapping[str, str] = os.environ) -> None:
    """Start exporting in the process that calls it (an exporter's thread survives no fork).

    Raises `UnknownExporter`.
    """
    wanted = environment.get("OTEL_TRACES_EXPORTER", "otlp")
    if wanted == "none" or not any(environment.get(name) for name in SWITCHES):
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SpanExporter,
    )

    exporter: SpanExporter
    if wanted == "console":
        exporter = ConsoleSpanExporter()
    elif wanted == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    else:
        raise UnknownExporter(wanted)
    name = environment.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def current_traceparent() -> str | None:
    """Return the W3C header of the span at hand; None where there is no trace."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def attempt_span(traceparent: str | None, job_id: str, attempt: int) -> Iterator[Span]:
    """Span one attempt at a job, as a child of the request that created the job."""
    parent = propagate.extract({"traceparent": traceparent} if traceparent else {})
    tracer = trace.get_tracer("disp.worker")
    attributes: dict[str, str | int] = {"disp.job.id": job_id, "disp.job.attempt": attempt}
    with tracer.start_as_current_span("defense job", context=parent, attributes=attributes) as span:
        yield span


def flush_traces() -> None:
    """Export what is waiting, in a process that may end without running its exit handlers."""
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush()


class StageSpans:
    """The stages of one attempt as spans, begun and ended as the engine's messages come."""

    def __init__(self) -> None:
        self._open: dict[str, Span] = {}

    def begin(self, stage: str) -> None:
        """Open the stage's span below the span at hand; one that is open already stays."""
        if stage not in self._open:
            self._open[stage] = trace.get_tracer("disp.worker").start_span(f"stage {stage}")

    def end(self, stage: str, *, reused: bool) -> None:
        """Close the stage's span; a stage that never began is ignored."""
        span = self._open.pop(stage, None)
        if span is not None:
            span.set_attribute("disp.stage.reused", reused)
            span.end()

    def abandon(self) -> None:
        """Close whatever is open, as the failure that it is."""
        for span in self._open.values():
            span.set_status(Status(StatusCode.ERROR, "the attempt ended within this stage"))
            span.end()
        self._open.clear()
