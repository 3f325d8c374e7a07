from pathlib import Path

import pytest

from client.demo import await_service, cancel_unfinished
from client.errors import Unavailable
from schemas.jobs import JobStatus
from schemas.requests import DefenseJobCreate
from tests.client.conftest import Service


class Ended:
    pid = 1

    def poll(self) -> int:
        return 1


def test_jobs_of_a_demo_that_was_broken_off_are_cancelled_and_ended_ones_left(
    service: Service, dataset: Path
) -> None:
    client = service.client()
    request = DefenseJobCreate(model="tiny", training_file=client.upload(dataset).id)
    ended = client.create_job(request).id
    service.work("succeed")
    left = [client.create_job(request).id for _ in range(2)]
    cancel_unfinished(client)
    assert [client.job(job_id).status for job_id in left] == [JobStatus.CANCELLED] * 2
    assert client.job(ended).status is JobStatus.SUCCEEDED


def test_a_service_that_does_not_start_is_told_by_the_last_line_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "serve.log").write_text("first\nthe disk is full\n\n")
    with pytest.raises(Unavailable, match=r"the disk is full \(see .*serve\.log\)"):
        await_service(tmp_path, Ended())  # type: ignore[arg-type]
