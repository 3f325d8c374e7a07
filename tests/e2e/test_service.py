"""The service as it is installed: three processes, a socket, the real engine."""

import stat
import time
import zipfile
from pathlib import Path

import pytest

from client.demo import running_service
from client.errors import Refused, Unavailable
from client.sdk import Client
from disp_engine.attacks.poison import PoisonedSet
from disp_engine.registry import DETECTORS
from schemas.files import File, FileStatus
from schemas.jobs import Job, JobStatus, StageName, StepStatus
from schemas.requests import DefenseJobCreate, DispHyperparameters, Method
from schemas.samples import SampleStatus
from tests.e2e.workload import fingerprint, upload


@pytest.fixture(scope="module")
def request_body(client: Client, data: PoisonedSet) -> DefenseJobCreate:
    return upload(client, data)


@pytest.fixture(scope="module")
def job(client: Client, request_body: DefenseJobCreate) -> Job:
    return client.wait(client.create_job(request_body).id)


def test_a_poisoned_dataset_comes_back_as_a_purified_one_with_every_stage_done(
    client: Client, job: Job, data: PoisonedSet, tmp_path: Path
) -> None:
    assert job.status is JobStatus.SUCCEEDED, job.error
    assert {step.name: step.status for step in job.steps} == dict.fromkeys(
        StageName, StepStatus.SUCCEEDED
    )
    paths = {path.name: path for path in client.fetch(job.id, tmp_path)}
    assert {path.name for path in tmp_path.iterdir()} - {"trigger.png"} == {
        "purified_dataset.zip",
        "mm_projector.safetensors",
        "report.json",
        "report.html",
        "samples.jsonl",
        "previews.bin",
    }
    with zipfile.ZipFile(paths["purified_dataset.zip"]) as archive:
        assert archive.testzip() is None and len(archive.namelist()) > 1


def test_the_report_accounts_for_every_sample_and_every_test(
    client: Client, job: Job, data: PoisonedSet
) -> None:
    report = client.report(job.id)
    counts = report.samples
    assert counts.total == data.samples
    assert counts.rewritten + counts.passed_through + counts.quarantined == counts.total
    for measured in (report.evaluation.before, report.evaluation.after):
        rates = (
            measured.asr_with_trigger,
            measured.asr_without_trigger,
            measured.clean_performance,
        )
        for rate in rates:
            assert rate is not None and rate.scored + rate.failed == data.tests


def test_every_rewritten_sample_is_scored_mapped_and_can_be_read(
    client: Client, job: Job, data: PoisonedSet
) -> None:
    verdict = client.report(job.id).verdict
    assert verdict is not None and set(verdict.detectors) == {*DETECTORS, "shared_look"}
    samples = list(client.samples(job.id, limit=1000).data)
    assert len(samples) == data.samples
    rewritten = [s for s in samples if s.status is SampleStatus.REWRITTEN]
    assert verdict.scored == len(rewritten)
    assert all(s.score is not None and s.heat and s.preview for s in rewritten)
    assert sum(bool(s.flagged) for s in samples) == verdict.flagged


def test_the_same_request_reuses_its_stages_and_gives_the_same_artifacts(
    client: Client, job: Job, request_body: DefenseJobCreate, tmp_path: Path
) -> None:
    again = client.wait(client.create_job(request_body).id)
    reused = {step.name for step in again.steps if step.reused}
    assert {StageName.FINE_TUNE, StageName.SALIENCY, StageName.PURIFY, StageName.RETRAIN} <= reused
    first = fingerprint(client, job.id, tmp_path / "first")
    assert fingerprint(client, again.id, tmp_path / "again") == first


def test_training_leaves_its_metrics(client: Client, job: Job) -> None:
    metrics = client.metrics(job.id).data
    assert {metric.stage for metric in metrics} == {StageName.FINE_TUNE, StageName.RETRAIN}
    assert all("loss" in metric.values for metric in metrics)


def test_an_upload_is_read_at_once_and_then_tells_what_is_in_it(
    client: Client, request_body: DefenseJobCreate, data: PoisonedSet
) -> None:
    assert until_read(client, request_body.training_file).status is FileStatus.PROCESSED
    found = client.validation(request_body.training_file)
    assert (found.records, found.usable, found.error) == (data.samples, data.samples, None)


def test_no_job_is_created_on_a_dataset_without_records_and_the_field_is_named(
    client: Client, request_body: DefenseJobCreate, tmp_path: Path
) -> None:
    path = tmp_path / "nothing.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    file = until_read(client, client.upload(path).id)
    assert file.status is FileStatus.ERROR and "exactly one .json" in str(file.status_details)
    changes = {"training_file": file.id, "evaluation": None}
    with pytest.raises(Refused) as refused:
        client.create_job(request_body.model_copy(update=changes))
    assert (refused.value.code, refused.value.param) == ("invalid_dataset", "/training_file")


def until_read(client: Client, file_id: str) -> File:
    deadline = time.monotonic() + 120
    while (file := client.file(file_id)).status not in (FileStatus.PROCESSED, FileStatus.ERROR):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return file


def test_a_running_job_can_be_cancelled(client: Client, request_body: DefenseJobCreate) -> None:
    long = Method(hyperparameters=DispHyperparameters(epochs=1000, batch_size=8))
    created = client.create_job(request_body.model_copy(update={"seed": 99, "method": long}))
    deadline = time.monotonic() + 120
    while client.job(created.id).status is not JobStatus.RUNNING:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    client.cancel(created.id)
    assert client.wait(created.id).status is JobStatus.CANCELLED


def test_the_api_key_is_readable_by_its_owner_only(client: Client, service_folder: Path) -> None:
    assert stat.S_IMODE((service_folder / "api_key").stat().st_mode) == 0o600


def test_a_data_folder_is_served_once(client: Client, service_folder: Path) -> None:
    described = (service_folder / "serve.json").read_bytes()
    with pytest.raises(Unavailable), running_service(service_folder):
        pass
    assert (service_folder / "serve.json").read_bytes() == described
