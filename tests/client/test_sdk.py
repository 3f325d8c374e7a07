import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from api.errors import RateLimited
from client.errors import (
    Broken,
    IntegrityError,
    NotAuthorised,
    NotFound,
    NotOurService,
    Refused,
    Unavailable,
)
from client.sdk import Client
from schemas.errors import ErrorCode
from schemas.jobs import Job, JobStatus
from schemas.requests import DefenseJobCreate
from schemas.samples import SampleStatus, Verdict
from storage.errors import StoreAway
from storage.interfaces import JobStore
from storage.keys import manifest_key
from tests.client.conftest import Service

RequestFor = Callable[[str], DefenseJobCreate]


def submit(client: Client, dataset: Path) -> Job:
    file = client.upload(dataset)
    return client.create_job(DefenseJobCreate(model="tiny", training_file=file.id))


def finished(service: Service, dataset: Path) -> tuple[Client, Job]:
    client = service.client()
    job = submit(client, dataset)
    service.work("succeed")
    return client, client.wait(job.id)


def times(count: int, error: Exception) -> Callable[[object], None]:
    left = [error] * count

    def fail(_: object) -> None:
        if left:
            raise left.pop()

    return fail


def test_an_uploaded_dataset_comes_back_purified_with_its_report(
    service: Service, dataset: Path, tmp_path: Path
) -> None:
    client, job = finished(service, dataset)

    assert job.status is JobStatus.SUCCEEDED
    paths = {path.name: path for path in client.fetch(job.id, tmp_path / "out")}
    assert paths["purified_dataset.zip"].read_bytes() == dataset.read_bytes()
    assert paths["mm_projector.safetensors"].read_bytes() == b"projector"
    report = client.report(job.id)
    assert (
        report.model_dump(mode="json")["samples"]
        == json.loads(paths["report.json"].read_text())["samples"]
    )


def test_events_come_in_order_once_and_end_with_the_job(service: Service, dataset: Path) -> None:
    client, job = finished(service, dataset)
    events = list(client.iter_events(job.id))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert "job succeeded" in events[-1].message


def test_events_go_on_behind_the_last_one_seen(service: Service, dataset: Path) -> None:
    client, job = finished(service, dataset)
    first, *rest = client.iter_events(job.id)
    assert list(client.iter_events(job.id, after_seq=first.seq)) == rest


def test_a_stream_that_breaks_off_is_taken_up_behind_the_last_event(
    service: Service, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, job = finished(service, dataset)
    whole = list(client.iter_events(job.id))
    real, sources = httpx2.EventSource, []

    def torn(response: httpx2.Response) -> Iterator[httpx2.ServerSentEvent]:
        sources.append(response.request.headers["last-event-id"])
        for number, message in enumerate(real(response)):
            if len(sources) < 3 and number == 3:
                raise httpx2.ReadError("connection reset")
            yield message

    monkeypatch.setattr(httpx2, "EventSource", torn)
    monkeypatch.setattr("client.stream.PAUSE_S", 0.0)
    assert list(client.iter_events(job.id)) == whole
    assert sources == ["0", "2", "4"]


def test_events_are_polled_where_no_stream_gets_through(
    service: Service, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, job = finished(service, dataset)
    whole = list(client.iter_events(job.id))
    tries = []

    def blocked(request: httpx2.Request) -> None:
        if request.url.path.endswith("/stream"):
            tries.append(request)
            raise httpx2.ReadTimeout("a proxy holds streams back")

    service.wire.before = blocked
    monkeypatch.setattr("client.stream.PAUSE_S", 0.0)
    assert list(client.iter_events(job.id)) == whole
    assert list(client.iter_events(job.id, after_seq=2)) == whole[2:]
    assert len(tries) == 6


def test_the_events_of_no_job_are_not_found(service: Service) -> None:
    with pytest.raises(NotFound):
        list(service.client().iter_events("job_" + "0" * 32))


def test_a_job_is_paused_resumed_cancelled_retried_and_deleted(
    service: Service, dataset: Path
) -> None:
    client = service.client()
    job = submit(client, dataset)
    assert client.pause(job.id).status is JobStatus.PAUSED
    assert client.resume(job.id).status is JobStatus.QUEUED
    with pytest.raises(Refused) as refusal:
        client.retry(job.id)
    assert refusal.value.code is ErrorCode.JOB_STATUS_CONFLICT
    assert client.cancel(job.id).status is JobStatus.CANCELLED
    again = client.retry(job.id)
    assert again.retry_of == job.id
    assert client.delete(job.id).deleted
    assert [other.id for other in client.jobs().data] == [again.id]


def test_jobs_are_found_by_their_labels(service: Service, dataset: Path) -> None:
    client = service.client()
    file = client.upload(dataset)
    wanted, _ = (
        client.create_job(
            DefenseJobCreate(model="tiny", training_file=file.id, metadata={"a key]": name})
        )
        for name in ("r&d=1", "other")
    )
    found = client.jobs(metadata={"a key]": "r&d=1"}, status=JobStatus.QUEUED)
    assert [job.id for job in found.data] == [wanted.id]


def test_samples_and_checkpoints_of_a_finished_job_are_read(
    service: Service, dataset: Path
) -> None:
    client, job = finished(service, dataset)
    page = client.samples(job.id, status=SampleStatus.REWRITTEN, verdict=Verdict.CHANGED)
    assert [sample.id for sample in page.data] == ["a b/c"]
    assert client.sample(job.id, "a b/c") == page.data[0]
    (checkpoint,) = client.checkpoints(job.id).data
    assert checkpoint.bytes == len(b"projector") and checkpoint.id in job.result_files


def test_a_tenant_that_asks_too_often_waits_and_is_served(service: Service) -> None:
    client, refused = service.client(), []
    hit = service.rates.check

    def sometimes(tenant: str) -> None:
        if len(refused) < 2:
            refused.append(tenant)
            raise RateLimited({"Retry-After": "1"})
        hit(tenant)

    object.__setattr__(service.rates, "check", sometimes)
    assert client.models() and refused == ["acme"] * 2


def test_a_job_is_created_once_although_the_first_answer_was_lost(
    service: Service, dataset: Path
) -> None:
    client = service.client()
    file = client.upload(dataset)
    service.wire.after = times(1, httpx2.ReadError("connection reset"))
    job = client.create_job(DefenseJobCreate(model="tiny", training_file=file.id))
    assert [other.id for other in client.jobs().data] == [job.id]


def test_a_gateway_that_restarts_goes_unnoticed(service: Service, dataset: Path) -> None:
    client = service.client()
    job = submit(client, dataset)
    service.wire.before = times(3, httpx2.ConnectError("refused"))
    assert client.job(job.id).id == job.id


def test_a_service_that_stays_away_is_unavailable(service: Service) -> None:
    client = service.client(patience_s=0.3)
    service.wire.before = times(100, httpx2.ConnectError("refused"))
    with pytest.raises(Unavailable, match="refused"):
        client.models()


@pytest.mark.parametrize("error", [httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError])
def test_an_upload_that_broke_off_midway_is_sent_again(
    service: Service, dataset: Path, error: type[httpx2.TransportError]
) -> None:
    client = service.client()
    service.wire.before = times(2, error("connection reset"))
    file = client.upload(dataset)
    assert file.bytes == dataset.stat().st_size
    assert len(service.wire.seen) == 3


def test_a_service_whose_store_is_away_is_asked_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = times(2, StoreAway())
    listed = type(service.store).list_models

    def sometimes(store: JobStore) -> object:
        away(None)
        return listed(store)

    monkeypatch.setattr(type(service.store), "list_models", sometimes)
    assert [model.id for model in service.client().models()] == ["tiny"]


def test_patience_begins_with_the_first_failure_and_anew_after_progress(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, done = [0.0], [0]
    monkeypatch.setattr("client.sdk.time.monotonic", lambda: now[0])
    monkeypatch.setattr("client.sdk.time.sleep", lambda pause: None)

    def advance() -> int:
        now[0] += 100.0
        done[0] += 1
        if done[0] < 4:
            raise httpx2.ReadError("connection reset")
        return done[0]

    client = service.client(patience_s=5.0)
    assert client._patiently(advance, lambda: done[0]) == 4
    done[0] = 0
    with pytest.raises(Unavailable):
        client._patiently(advance)
    assert done[0] == 2


@pytest.mark.parametrize("error", [httpx2.UnsupportedProtocol, httpx2.LocalProtocolError])
def test_what_can_never_succeed_is_not_repeated(
    service: Service, error: type[httpx2.TransportError]
) -> None:
    service.wire.before = times(9, error("no"))
    with pytest.raises(Unavailable):
        service.client().models()
    assert len(service.wire.seen) == 1


@pytest.mark.parametrize("answer", [(200, "<p>welcome</p>"), (404, "nothing"), (302, "")])
def test_something_else_that_answers_is_not_our_service(answer: tuple[int, str]) -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(answer[0], text=answer[1]))
    with pytest.raises(NotOurService), Client("http://x", "k", transport=transport) as client:
        client.models()


def test_an_artifact_cannot_name_a_place_outside_the_folder(
    service: Service, dataset: Path, tmp_path: Path
) -> None:
    client, job = finished(service, dataset)
    key = manifest_key("acme", job.id, 1)
    artifacts = service.workplace.artifacts
    forged = artifacts.get(key).replace(b'"report.html"', b'"../report.html"')
    artifacts.put_stream(key, [forged])
    with pytest.raises(Broken):
        client.fetch(job.id, tmp_path / "out")
    assert not (tmp_path / "report.html").exists()


def test_a_download_goes_on_where_it_was_cut_off(
    service: Service, dataset: Path, tmp_path: Path
) -> None:
    client, job = finished(service, dataset)
    entry = next(e for e in client.artifacts(job.id).artifacts if e.name == "purified_dataset.zip")
    part = tmp_path / f".{entry.name}.{entry.sha256[:12]}.part"
    part.write_bytes(dataset.read_bytes()[:10])

    path = client.fetch_artifact(job.id, entry, tmp_path / entry.name)

    assert service.wire.seen[-1].headers["range"] == "bytes=10-"
    assert path.read_bytes() == dataset.read_bytes() and not part.exists()


def test_a_download_with_wrong_bytes_never_gets_the_artifacts_name(
    service: Service, dataset: Path, tmp_path: Path
) -> None:
    client, job = finished(service, dataset)
    entry = next(e for e in client.artifacts(job.id).artifacts if e.name == "purified_dataset.zip")
    part = tmp_path / f".{entry.name}.{entry.sha256[:12]}.part"
    part.write_bytes(b"not these" + b"!")
    path = tmp_path / entry.name

    with pytest.raises(IntegrityError):
        client.fetch_artifact(job.id, entry, path)
    assert not path.exists()
    assert client.fetch_artifact(job.id, entry, path).read_bytes() == dataset.read_bytes()


def test_what_lies_there_already_is_not_downloaded_again(
    service: Service, dataset: Path, tmp_path: Path
) -> None:
    client, job = finished(service, dataset)
    client.fetch(job.id, tmp_path / "out")
    service.wire.seen.clear()
    client.fetch(job.id, tmp_path / "out")
    assert [request.url.path.rsplit("/", 1)[-1] for request in service.wire.seen] == ["artifacts"]


def test_a_wrong_key_is_not_authorised(service: Service) -> None:
    with pytest.raises(NotAuthorised) as caught:
        service.client(api_key="disp_nobody").models()
    assert caught.value.code is ErrorCode.UNAUTHENTICATED


def test_an_unknown_job_is_not_found(service: Service) -> None:
    with pytest.raises(NotFound):
        service.client().job("job_" + "0" * 32)


def test_an_unknown_model_is_refused_with_its_code(service: Service, dataset: Path) -> None:
    client = service.client()
    file = client.upload(dataset)
    with pytest.raises(Refused) as caught:
        client.create_job(DefenseJobCreate(model="no-such-model", training_file=file.id))
    assert caught.value.code is ErrorCode.MODEL_NOT_FOUND


def test_a_cancelled_job_never_runs(service: Service, dataset: Path) -> None:
    client = service.client()
    job = submit(client, dataset)
    assert client.cancel(job.id).status is JobStatus.CANCELLED
    assert service.store.claim("runner", lease_s=1.0) is None
