from pathlib import Path

import pytest

from client.progress import PlainView
from client.watch import Follower, watch_job
from schemas.jobs import JobStatus
from schemas.requests import DefenseJobCreate
from tests.client.conftest import Service


def test_a_wait_for_the_runner_is_told_once(
    service: Service, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = service.client()
    file = client.upload(dataset)
    job = client.create_job(DefenseJobCreate(model="tiny", training_file=file.id))
    follower = Follower(PlainView())
    follower.see(job)
    follower.see(job)
    follower.see(client.pause(job.id))
    follower.see(client.resume(job.id))
    assert capsys.readouterr().err.splitlines() == [
        "queued: waiting for the runner",
        "paused: waiting to be resumed",
        "queued: waiting for the runner",
    ]


def test_a_job_is_watched_over_one_stream(
    service: Service, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = service.client()
    request = DefenseJobCreate(model="tiny", training_file=client.upload(dataset).id)
    job = client.create_job(request)
    service.work("succeed")
    service.wire.seen.clear()
    assert watch_job(client, job.id, PlainView()).status is JobStatus.SUCCEEDED
    asked = [request.url.path.rpartition(job.id)[2] for request in service.wire.seen]
    assert asked == ["/events/stream", ""]
    shown = capsys.readouterr().err
    assert "warn: a word of warning" in shown and "ingest" in shown
