"""OpenAI's own client and a raw event stream against a gateway on a socket, with a real runner."""

import json
import time

import httpx2
import openai
import pytest

from api.app import create_app
from api.settings import GatewaySettings
from client.sdk import Client
from schemas.jobs import Event, Job, JobStatus
from schemas.requests import DefenseJobCreate
from storage.connect import open_job_store
from storage.interfaces import ModelRecord
from tests.api.live import listening
from tests.api.world import zip_archive
from tests.engine.test_dataset import make_zip, png, record
from tests.parts.sqlite import sqlite_database
from tests.workers.test_runner import start_runner
from workers.settings import WorkerSettings

ENDED = ("succeeded", "failed", "cancelled")
PATIENCE_S = 300


@pytest.fixture
def store(tmp_path):
    store = open_job_store(sqlite_database(tmp_path / "disp.db"))
    store.register_model(ModelRecord("tiny", "llada_v", "r1", "/models/t"))
    yield store
    store.close()


@pytest.fixture
def url(store, tmp_path):
    settings = GatewaySettings(
        database_url=f"sqlite:///{tmp_path}/disp.db", artifacts_url=f"file://{tmp_path}/artifacts"
    )
    with listening(create_app(settings)) as url:
        yield url


@pytest.fixture
def runner(store, tmp_path):
    """Start a runner whose engine does what the script says."""
    settings = WorkerSettings(
        database_url=f"sqlite:///{tmp_path}/disp.db",
        artifacts_url=f"file://{tmp_path}/artifacts",
        work_dir=tmp_path / "work",
        poll_s=0.05,
        heartbeat_s=0.2,
        lease_s=5.0,
    )
    started = []
    yield lambda script: started.append(start_runner(settings, script))
    for process in started:
        process.terminate()
        process.wait()


def until(holds):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)
    return found


def test_openais_client_uploads_creates_follows_and_reads_the_results(url, store, runner, tmp_path):
    data = tmp_path / "data.zip"
    data.write_bytes(zip_archive())
    with openai.OpenAI(base_url=f"{url}/v1", api_key=store.issue_key("acme")) as client:
        file = client.files.create(file=data, purpose="fine-tune")
        jobs = client.fine_tuning.jobs
        job = jobs.create(
            model="tiny",
            training_file=file.id,
            seed=3,
            metadata={"team": "red"},
            suffix="mine",
            extra_body={"model_revision": "r1", "stages": ["purify", "retrain"]},
        )
        assert job.model_extra["stages"] == ["purify", "retrain"]
        assert (job.status, job.training_file, job.seed) == ("queued", file.id, 3)
        assert jobs.pause(job.id).status == "paused"
        assert jobs.resume(job.id).status == "queued"

        runner("succeed")
        ended = until(lambda: (j := jobs.retrieve(job.id)).status in ENDED and j)
        assert (ended.status, ended.error) == ("succeeded", None)
        messages = [event.message for event in jobs.list_events(job.id, limit=3)]
        assert messages[0] == "job created" and messages[-1] == "job succeeded"
        assert "a word of warning" in messages and len(messages) == len(set(messages))
        assert [found.id for found in jobs.list(metadata={"team": "red"})] == [job.id]
        assert list(jobs.list(metadata={"team": "blue"})) == []

        results = {client.files.retrieve(id).filename: id for id in ended.result_files}
        assert client.files.content(results["purified_dataset.zip"]).read() == data.read_bytes()
        (checkpoint,) = jobs.checkpoints.list(job.id)
        assert client.files.content(checkpoint.id).read() == b"projector"


def test_openais_client_waits_until_a_file_was_read(url, store, runner, tmp_path):
    runner("succeed")
    members = {"data.json": json.dumps([record()]).encode(), "images/a.png": png()}
    good, hopeless = make_zip(tmp_path / "good.zip", members), tmp_path / "hopeless.zip"
    hopeless.write_bytes(zip_archive())
    with openai.OpenAI(base_url=f"{url}/v1", api_key=store.issue_key("acme")) as client:
        read = []
        for path in (good, hopeless):
            file = client.files.create(file=path, purpose="fine-tune")
            assert (file.status, file.status_details) == ("uploaded", None)
            read.append(client.files.wait_for_processing(file.id, poll_interval=0.1))
        assert [(file.status, file.status_details is None) for file in read] == [
            ("processed", True),
            ("error", False),
        ]
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.fine_tuning.jobs.create(model="tiny", training_file=read[1].id)
        assert (refused.value.code, refused.value.param) == ("invalid_dataset", "/training_file")


def test_openais_client_understands_what_is_refused(url, store):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=store.issue_key("acme")) as client:
        with pytest.raises(openai.NotFoundError) as absent:
            client.fine_tuning.jobs.retrieve("job_" + "0" * 32)
        assert absent.value.code == "not_found"
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.fine_tuning.jobs.create(model="nobody", training_file="file_" + "0" * 32)
        assert (refused.value.code, refused.value.param) == ("model_not_found", "/model")
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="sk-nobody") as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.files.list()


def test_a_stream_tells_what_happens_as_it_happens_and_ends_with_the_job(
    url, store, runner, tmp_path
):
    data = tmp_path / "data.zip"
    data.write_bytes(zip_archive())
    with Client(url, store.issue_key("acme")) as client:
        request = DefenseJobCreate(model="tiny", training_file=client.upload(data).id)
        job = client.create_job(request)
        seen = []
        for item in client.follow(job.id):
            if not seen:
                runner("succeed")
            seen.append(item)
        events = [item for item in seen if isinstance(item, Event)]
        states = [item for item in seen if isinstance(item, Job)]
        assert events == list(client.event_page(job.id).data)
        assert states[0].status is JobStatus.QUEUED and states[-1].status is JobStatus.SUCCEEDED
        assert states[-1] == client.job(job.id)


def test_a_stream_goes_on_behind_the_last_event_id_and_pings_while_nothing_happens(
    url, store, tmp_path, monkeypatch
):
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    data = tmp_path / "data.zip"
    data.write_bytes(zip_archive())
    token = store.issue_key("acme")
    with Client(url, token) as client:
        request = DefenseJobCreate(model="tiny", training_file=client.upload(data).id)
        job = client.create_job(request)
        client.pause(job.id)
        client.resume(job.id)
    headers = {"Authorization": f"Bearer {token}", "Last-Event-ID": "2"}
    path = f"{url}/v1/defense/jobs/{job.id}/events/stream"
    lines = []
    with httpx2.stream("GET", path, headers=headers, timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            lines.append(line)
            if line == ": ping" and any(line.startswith("event: job") for line in lines):
                break
    ids = [line for line in lines if line.startswith("id: ")]
    assert ids == ["id: 3"], "the first two were seen"
    first = next(line for line in lines if line.startswith("data: "))
    assert json.loads(first.removeprefix("data: "))["message"] == "job resumed: queued again"
