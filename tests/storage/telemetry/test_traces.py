import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import GatewaySettings
from schemas.requests import DefenseJobCreate
from storage.telemetry.traces import UnknownExporter, configure_traces
from tests.workers.conftest import TENANT, Bench, bench, settings
from workers.context import Outcome
from workers.supervisor import supervise

__all__ = ["bench", "settings"]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def create_over_http(bench: Bench) -> None:
    """Replace the bench's job by one that came through the gateway."""
    training_file = bench.job().training_file
    bench.store.request_cancel(TENANT, bench.job_id)
    settings = bench.workplace.settings
    app = create_app(
        GatewaySettings(
            database_url=settings.database_url,
            artifacts_url=settings.artifacts_url,
        )
    )
    body = DefenseJobCreate(model="tiny", training_file=training_file)
    with TestClient(app) as client:
        key = bench.store.issue_key(TENANT)
        answer = client.post(
            "/v1/defense/jobs",
            json=body.model_dump(mode="json", exclude_none=True),
            headers={"Authorization": f"Bearer {key}"},
        )
    assert answer.status_code == 201, answer.text


def test_a_trace_leads_from_the_request_to_the_stages(
    bench: Bench, spans: InMemorySpanExporter
) -> None:
    create_over_http(bench)
    claim = bench.claim()
    assert claim.traceparent is not None
    supervise(claim, bench.running("succeed"), threading.Event())

    found = {span.name: span for span in spans.get_finished_spans()}
    request = found["POST /v1/defense/jobs"]
    attempt = found["defense job"]
    assert attempt.context.trace_id == request.context.trace_id
    # The row names the span that was at hand when it was written: the request or its endpoint's.
    family = {span.context.span_id: span for span in spans.get_finished_spans()}
    above = attempt
    while above.parent is not None and above.parent.span_id in family:
        above = family[above.parent.span_id]
    assert above is request
    assert attempt.attributes["disp.job.id"] == claim.job_id
    assert attempt.attributes["disp.outcome"] == "succeeded"
    for name, reused in (("stage ingest", False), ("stage fine_tune", True)):
        assert found[name].parent.span_id == attempt.context.span_id
        assert found[name].attributes["disp.stage.reused"] is reused
        assert found[name].start_time <= found[name].end_time


def test_a_stage_in_which_the_engine_died_is_a_failed_span(
    bench: Bench, spans: InMemorySpanExporter
) -> None:
    assert supervise(bench.claim(), bench.running("refuse"), threading.Event()) is Outcome.FAILED
    (stage,) = [span for span in spans.get_finished_spans() if span.name == "stage ingest"]
    assert stage.status.status_code is StatusCode.ERROR


def test_a_job_without_a_trace_begins_one_of_its_own(
    bench: Bench, spans: InMemorySpanExporter
) -> None:
    claim = replace(bench.claim(), traceparent=None)
    supervise(claim, bench.running("succeed"), threading.Event())
    (attempt,) = [span for span in spans.get_finished_spans() if span.name == "defense job"]
    assert attempt.parent is None


def test_without_otel_variables_nothing_is_exported_nor_imported() -> None:
    code = (
        "import sys; from storage.telemetry.traces import configure_traces; configure_traces('x'); "
        "sys.exit(any(name.startswith('opentelemetry.exporter') for name in sys.modules))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_an_exporter_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UnknownExporter):
        configure_traces("x", {"OTEL_TRACES_EXPORTER": "zipkin"})


def test_spans_are_sent_to_an_otlp_collector_before_the_process_ends() -> None:
    from tests.storage.webhooks.receiver import receiving

    code = (
        "from storage.telemetry.traces import attempt_span, configure_traces, flush_traces; "
        "import os; "
        "configure_traces('disp-worker'); "
        "s = attempt_span(None, 'job_1', 1); s.__enter__(); s.__exit__(None, None, None); "
        "flush_traces(); os._exit(0)"
    )
    with receiving() as collector:
        url = f"http://127.0.0.1:{collector.port}"
        environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    (seen,) = collector.seen
    assert seen.path == "/v1/traces"
    assert b"disp-worker" in seen.body and b"defense job" in seen.body
