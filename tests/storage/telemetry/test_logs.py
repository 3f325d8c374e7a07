import io
import json
import logging

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from storage.telemetry import logs


@pytest.fixture
def written(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs.configure_logs()
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


def test_an_event_is_one_line_of_json_with_whatever_is_bound(written):
    with structlog.contextvars.bound_contextvars(request_id="r1", job_id="job_1"):
        structlog.get_logger().warning("lease_lost", attempt=2)
    (event,) = written()
    assert event["event"] == "lease_lost" and event["level"] == "warning"
    assert (event["request_id"], event["job_id"], event["attempt"]) == ("r1", "job_1", 2)
    assert event["timestamp"].endswith("Z") and "trace_id" not in event


def test_within_a_trace_the_event_carries_its_id(written):
    with TracerProvider().get_tracer("t").start_as_current_span("work") as span:
        structlog.get_logger().info("said")
    assert written()[0]["trace_id"] == f"{span.get_span_context().trace_id:032x}"


def test_what_a_library_warns_of_is_an_event_too(written):
    library = logging.getLogger("celery.worker")
    library.info("ready")
    try:
        raise OSError("closed")
    except OSError as error:
        library.critical("Unrecoverable error: %r", error, exc_info=True)
    (event,) = written()
    assert event["event"] == "Unrecoverable error: OSError('closed')"
    assert (event["logger"], event["level"]) == ("celery.worker", "critical")
    assert event["exception"].endswith("OSError: closed")
