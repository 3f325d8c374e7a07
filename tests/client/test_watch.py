from pathlib import Path

import pytest

from client.progress import PlainView
from client.watch import Follower
from schemas.requests import DefenseJobCreate
from tests.client.conftest import Service


def test_a_wait_for_the_runner_is_told_once(
    service: Service, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = service.client()
    file = client.upload(dataset)
    job = client.create_job(DefenseJobCreate(model="tiny", training_file=file.id))
    follower = Follower(client, job.id, PlainView())
    follower.see(job)
    follower.see(job)
    assert capsys.readouterr().err == "queued: waiting for the runner\n"
