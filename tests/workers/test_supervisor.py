import hashlib
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from disp_engine.process import COURTESY
from schemas.artifacts import Manifest
from schemas.files import FilePurpose
from schemas.jobs import Job, JobStatus, StageName, StepStatus
from schemas.requests import AskedStage, DefenseJobCreate
from storage.artifacts import MemoryArtifactStore
from storage.errors import StoreAway
from storage.ids import new_id
from storage.interfaces import Claim, FileDraft, ModelRecord, StoredBlob
from storage.keys import manifest_key, upload_key
from tests.workers.conftest import DATA, TENANT, Bench
from workers.context import Outcome
from workers.engine_process import EngineProcess
from workers.publication import publish
from workers.supervisor import ENGINE_COMMAND, Workplace, supervise

Wait = Callable[[Callable[[], bool]], None]


def run(bench: Bench, script: str, stop: threading.Event | None = None) -> Outcome:
    return supervise(bench.claim(), bench.running(script), stop or threading.Event())


def manifest(bench: Bench) -> Manifest:
    key = bench.store.published_manifest(TENANT, bench.job_id)
    assert key is not None
    data = bench.workplace.artifacts.get(key)
    return Manifest.model_validate_json(data)


def test_a_finished_engine_makes_a_succeeded_job_whose_manifest_lists_every_artifact(
    bench: Bench,
) -> None:
    assert run(bench, "succeed") is Outcome.SUCCEEDED

    job = bench.job()
    assert job.status is JobStatus.SUCCEEDED
    assert job.result is not None and job.result["samples"]["rewritten"] == 1
    entries = {entry.name: entry for entry in manifest(bench).artifacts}
    assert set(entries) == {
        "purified_dataset.zip",
        "mm_projector.safetensors",
        "report.json",
        "report.html",
        "samples.jsonl",
    }
    dataset = entries["purified_dataset.zip"]
    assert dataset.sha256 == hashlib.sha256(DATA).hexdigest() and dataset.bytes == len(DATA)
    assert bench.workplace.artifacts.get(dataset.key) == DATA


def test_what_the_engine_says_becomes_steps_events_and_metrics(bench: Bench) -> None:
    run(bench, "succeed")

    steps = {step.name: step for step in bench.job().steps}
    ingest, fine_tune = steps[StageName.INGEST], steps[StageName.FINE_TUNE]
    assert (ingest.status, ingest.done, ingest.total) == (StepStatus.SUCCEEDED, 4, 4)
    assert (fine_tune.status, fine_tune.reused) == (StepStatus.SUCCEEDED, True)
    texts = [event.message for event in bench.events()]
    assert "ingest finished in 0.5 s" in texts
    assert "a word of warning" in texts
    (metric,) = bench.store.list_metrics(TENANT, bench.job_id).data
    assert (metric.stage, metric.step, metric.values) == (StageName.FINE_TUNE, 10, {"loss": 0.5})


def test_what_the_engine_finds_in_a_file_is_kept_with_the_file(bench: Bench) -> None:
    file_id = bench.job().training_file
    assert bench.store.file_validation(TENANT, file_id) is None
    supervise(bench.claim(), bench.running("succeed"), threading.Event())
    found = bench.store.file_validation(TENANT, file_id)
    assert found is not None and found.file_id == file_id and found.job_id == bench.job_id
    assert (found.records, found.usable, found.repeated_ids) == (4, 3, 1)
    assert [fault.reason for fault in found.faults] == ["no text"]


def test_a_job_fails_whose_model_was_replaced_while_it_waited(bench: Bench) -> None:
    request = DefenseJobCreate(
        model="tiny", model_revision="r1", training_file=bench.job().training_file
    )
    job_id = bench.store.create_job(TENANT, request).job.id
    bench.store.register_model(ModelRecord("tiny", "llada_v", "r2", "/models/t"))
    claim = bench.store.claim("runner", lease_s=60.0, job_id=job_id)
    assert claim is not None
    assert supervise(claim, bench.running("succeed"), threading.Event()) is Outcome.FAILED
    error = bench.store.get_job(TENANT, job_id).error
    assert error is not None and (error.code, error.param) == ("invalid_model", "model_revision")


def test_the_engine_is_told_paths_and_settings_but_no_secret(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISP_DATABASE_URL", "postgresql://user:password@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    run(bench, "show_environment")

    (shown,) = [event.message for event in bench.events() if event.message.startswith("{")]
    environment = json.loads(shown)
    assert environment["OMP_NUM_THREADS"] == "1" and environment["HF_HUB_OFFLINE"] == "1"
    assert "DISP_DATABASE_URL" not in environment and "AWS_SECRET_ACCESS_KEY" not in environment
    (spec_path,) = bench.workplace.settings.work_dir.rglob("spec.json")
    spec = json.loads(spec_path.read_text())
    assert spec["seed"] == 7 and spec["model_dir"] == "/models/t"
    assert spec["method"] == {"type": "disp", "hyperparameters": {}}


def test_a_refused_dataset_fails_the_job_with_the_engines_own_code(bench: Bench) -> None:
    assert run(bench, "refuse") is Outcome.FAILED

    job = bench.job()
    assert job.status is JobStatus.FAILED and job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_dataset", "training_file")
    assert {step.name: step.status for step in job.steps}[StageName.INGEST] is StepStatus.FAILED


def test_a_killed_engine_leaves_the_job_leased_and_its_last_words_to_the_operators_alone(
    bench: Bench,
) -> None:
    with capture_logs() as logs:
        assert run(bench, "crash") is Outcome.ENGINE_LOST

    assert bench.job().status is JobStatus.VALIDATING_FILES
    death = bench.events()[-1]
    assert (death.level, death.data) == ("error", {"exit_status": -9})
    (logged,) = [entry for entry in logs if entry["event"] == "engine_died"]
    assert "last words before the crash" in logged["log_tail"]


def test_the_same_owner_takes_a_crashed_job_back_and_finishes_it(bench: Bench) -> None:
    assert run(bench, "crash_once") is Outcome.ENGINE_LOST
    assert run(bench, "crash_once") is Outcome.SUCCEEDED
    assert bench.job().attempt == 2 and manifest(bench).attempt == 2


def attempts_until_the_end(bench: Bench, script: str) -> list[Outcome]:
    outcomes = []
    while (claim := bench.store.claim("runner", lease_s=2.0)) is not None:
        outcomes.append(supervise(claim, bench.running(script), threading.Event()))
    return outcomes


def test_an_engine_that_always_dies_is_given_up_after_three_losses_without_progress(
    bench: Bench,
) -> None:
    attempts = len(attempts_until_the_end(bench, "crash"))
    job = bench.job()
    assert job.status is JobStatus.FAILED and job.error is not None
    assert job.error.code == "worker_lost" and 4 <= attempts <= 5


def test_an_engine_that_breaks_three_times_in_a_row_fails_the_job_with_its_own_words(
    bench: Bench,
) -> None:
    lost, failed = Outcome.ENGINE_LOST, Outcome.FAILED
    assert attempts_until_the_end(bench, "break_down") == [lost, lost, failed]
    job = bench.job()
    assert job.status is JobStatus.FAILED and job.error is not None
    assert (job.error.code, job.error.message) == ("engine_error", "the optimiser exploded")


def test_lines_that_are_no_messages_are_ignored_and_reported_once(bench: Bench) -> None:
    assert run(bench, "babble") is Outcome.SUCCEEDED
    warnings = [event for event in bench.events() if "no message of its protocol" in event.message]
    assert len(warnings) == 1


def test_done_without_output_fails_the_job_and_publishes_nothing(bench: Bench) -> None:
    assert run(bench, "lie") is Outcome.FAILED
    job = bench.job()
    assert job.error is not None and job.error.code == "engine_error"
    assert not bench.workplace.artifacts.exists(manifest_key(TENANT, bench.job_id, 1))


def test_output_without_done_is_not_believed(bench: Bench) -> None:
    assert run(bench, "leave_silently") is Outcome.ENGINE_LOST
    assert not bench.workplace.artifacts.exists(manifest_key(TENANT, bench.job_id, 1))


def test_a_helper_that_outlives_its_engine_does_not_hold_up_the_job(bench: Bench) -> None:
    started = time.monotonic()
    assert run(bench, "leave_a_helper") is Outcome.SUCCEEDED
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("script", ["work_until_asked", "hang"])
def test_a_cancelled_job_ends_its_engine_even_one_that_ignores_sigterm(
    bench: Bench, eventually: Wait, script: str
) -> None:
    claim = bench.claim()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_once_ingested, bench, eventually, bench.store.request_cancel)
        outcome = supervise(claim, bench.running(script), threading.Event())
    assert outcome is Outcome.CANCELLED
    assert bench.job().status is JobStatus.CANCELLED


@pytest.mark.parametrize("script", ["work_until_asked", "hang"])
def test_a_paused_job_lets_its_engine_save_and_is_finished_after_it_is_resumed(
    bench: Bench, eventually: Wait, script: str
) -> None:
    claim = bench.claim()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_once_ingested, bench, eventually, bench.store.request_pause)
        outcome = supervise(claim, bench.running(script), threading.Event())
    assert outcome is Outcome.PAUSED
    job = bench.job()
    assert (job.status, job.steps[0].status) == (JobStatus.PAUSED, StepStatus.SUCCEEDED)
    assert bench.store.claim("runner", lease_s=2.0) is None
    bench.store.resume_job(TENANT, bench.job_id)
    assert run(bench, "succeed") is Outcome.SUCCEEDED


def test_a_pause_withdrawn_while_the_engine_stops_queues_the_job_again(
    bench: Bench, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = EngineProcess.ask_to_stop

    def withdraw(engine: EngineProcess, grace_s: float) -> None:
        bench.store.resume_job(TENANT, bench.job_id)
        real(engine, grace_s)

    monkeypatch.setattr(EngineProcess, "ask_to_stop", withdraw)
    claim = bench.claim()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_once_ingested, bench, eventually, bench.store.request_pause)
        outcome = supervise(claim, bench.running("work_until_asked"), threading.Event())
    assert outcome in (Outcome.PAUSED, Outcome.RELEASED)
    assert bench.job().status is JobStatus.QUEUED


def test_a_job_cancelled_while_it_pauses_is_cancelled(
    bench: Bench, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = EngineProcess.ask_to_stop

    def cancel(engine: EngineProcess, grace_s: float) -> None:
        bench.store.request_cancel(TENANT, bench.job_id)
        real(engine, grace_s)

    monkeypatch.setattr(EngineProcess, "ask_to_stop", cancel)
    claim = bench.claim()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_once_ingested, bench, eventually, bench.store.request_pause)
        supervise(claim, bench.running("work_until_asked"), threading.Event())
    assert bench.job().status is JobStatus.CANCELLED


def test_every_artifact_of_a_finished_job_is_a_file_of_its_tenant(bench: Bench) -> None:
    run(bench, "succeed")
    files = [bench.store.get_file(TENANT, file_id) for file_id in bench.job().result_files]
    assert {file.purpose for file in files} == {FilePurpose.RESULTS}
    expected = {(entry.name, entry.sha256, entry.bytes) for entry in manifest(bench).artifacts}
    assert {(file.filename, file.sha256, file.bytes) for file in files} == expected


def test_a_shutdown_hands_the_job_back_without_counting_a_loss(
    bench: Bench, eventually: Wait
) -> None:
    stop = threading.Event()
    claim = bench.claim()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (eventually(lambda: _ingested(bench)), stop.set()))
        outcome = supervise(claim, bench.running("work_until_asked"), stop)
    assert outcome is Outcome.RELEASED
    assert bench.job().status is JobStatus.QUEUED


def test_an_attempt_that_lost_its_lease_kills_the_engine_and_publishes_nothing(
    bench: Bench, eventually: Wait
) -> None:
    claim = bench.claim("runner")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (eventually(lambda: _ingested(bench)), bench.claim("runner")))
        outcome = supervise(claim, bench.running("work_until_asked"), threading.Event())
    assert outcome is Outcome.LEASE_LOST
    assert bench.job().attempt == 2 and bench.job().status is JobStatus.VALIDATING_FILES
    assert not bench.workplace.artifacts.exists(manifest_key(TENANT, bench.job_id, 1))


def test_an_engine_that_falls_silent_for_too_long_is_lost(bench: Bench) -> None:
    impatient = bench.workplace.settings.model_copy(update={"silence_s": 0.5})
    workplace = replace(bench.running("hang"), settings=impatient)
    assert supervise(bench.claim(), workplace, threading.Event()) is Outcome.ENGINE_LOST


def test_a_job_whose_manifest_exists_is_finished_without_running_the_engine_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_between_manifest_and_verdict(*_: object) -> None:
        raise ConnectionError("the database went away")

    with monkeypatch.context() as patch:
        patch.setattr(type(bench.store), "succeed", die_between_manifest_and_verdict)
        with pytest.raises(ConnectionError):
            run(bench, "succeed")
    assert run(bench, "crash") is Outcome.SUCCEEDED
    assert bench.job().attempt == 2 and manifest(bench).attempt == 1


def test_a_publication_that_comes_too_late_leaves_the_winners_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = bench.running("succeed")
    settings = place.settings.model_copy(update={"work_dir": tmp_path / "elsewhere"})

    def publish_too_late(artifacts, out_dir, context, stages):  # type: ignore[no-untyped-def]
        monkeypatch.setattr("workers.supervisor.publish", publish)
        winner = supervise(bench.claim(), replace(place, settings=settings), threading.Event())
        assert winner is Outcome.SUCCEEDED
        unaware = SimpleNamespace(claim=context.claim, check=lambda: None)
        return publish(artifacts, out_dir, unaware, stages)

    monkeypatch.setattr("workers.supervisor.publish", publish_too_late)
    assert supervise(bench.claim(), place, threading.Event()) is Outcome.LEASE_LOST
    late = bench.workplace.artifacts.get(manifest_key(TENANT, bench.job_id, 1))
    assert Manifest.model_validate_json(late).attempt == 1
    assert manifest(bench).attempt == 2 and bench.job().status is JobStatus.SUCCEEDED


def test_corrupted_bytes_of_an_upload_are_never_given_to_the_engine(bench: Bench) -> None:
    inputs = bench.store.job_inputs(bench.claim())
    bench.workplace.artifacts.put_stream(inputs.training.key, [b"something else"])
    assert run(bench, "succeed") is Outcome.FAILED
    job = bench.job()
    assert job.error is not None and "sha256" in job.error.message


def test_a_silent_database_is_a_lost_lease_once_the_lease_has_run_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = bench.claim()
    workplace: Workplace = bench.running("work_until_asked")

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the database")

    monkeypatch.setattr(type(bench.store), "heartbeat", away)
    monkeypatch.setattr(type(bench.store), "record", away)
    assert supervise(claim, workplace, threading.Event()) is Outcome.LEASE_LOST


def _ingested(bench: Bench) -> bool:
    return bench.job().steps[0].status is StepStatus.SUCCEEDED


def _once_ingested(bench: Bench, eventually: Wait, ask: Callable[[str, str], Job]) -> None:
    eventually(lambda: _ingested(bench))
    ask(TENANT, bench.job_id)


class Flickering(MemoryArtifactStore):
    """Away each first time that something is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        self._once(f"open {key}")
        return super().open(key, start=start, length=length)

    def put_file(self, key: str, path: Path) -> StoredBlob:
        self._once(f"put {key}")
        return super().put_file(key, path)

    def create(self, key: str, data: bytes) -> StoredBlob:
        self._once(f"create {key}")
        return super().create(key, data)

    def _once(self, call: str) -> None:
        if call not in self.asked:
            self.asked.add(call)
            raise StoreAway()


def test_an_attempt_waits_for_an_artifact_store_that_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.patience.RETRY_S", 0.01)
    place = replace(bench.running("succeed"), artifacts=Flickering())
    (file_id,) = [file.id for file in bench.store.list_files(TENANT).data]
    place.artifacts.put_stream(upload_key(TENANT, file_id), [DATA])
    assert supervise(bench.claim(), place, threading.Event()) is Outcome.SUCCEEDED
    assert bench.job().attempt == 1


def test_an_attempt_outlives_a_database_that_is_away_for_a_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.patience.RETRY_S", 0.01)
    store = type(bench.store)
    for name in ("record", "succeed"):
        monkeypatch.setattr(store, name, away_every_other_time(getattr(store, name)))
    assert run(bench, "succeed") is Outcome.SUCCEEDED
    assert bench.job().attempt == 1
    assert {step.status for step in bench.job().steps[:2]} == {StepStatus.SUCCEEDED}


def away_every_other_time(method: Callable[..., None]) -> Callable[..., None]:
    calls = itertools.count()

    def flickering(*given: object, **named: object) -> None:
        if next(calls) % 2 == 0:
            raise StoreAway()
        method(*given, **named)

    return flickering


def test_an_attempt_waits_no_longer_than_it_may(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreAway()

    monkeypatch.setattr(type(bench.workplace.artifacts), "open", away)
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    assert run(bench, "succeed", stop) is Outcome.RELEASED
    assert bench.job().status is JobStatus.QUEUED


def test_the_engine_gives_way_to_whoever_answers_requests(tmp_path: Path, eventually: Wait) -> None:
    engine = EngineProcess([*ENGINE_COMMAND, str(tmp_path)], log_path=tmp_path / "log")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        eventually(lambda: os.getpriority(os.PRIO_PROCESS, engine.pid) == min(own + COURTESY, 19))
    finally:
        engine.reap()


def ask_for(bench: Bench, **fields: Any) -> tuple[str, Claim]:
    """A further job on the same file, with a claim on it."""
    request = DefenseJobCreate(model="tiny", training_file=bench.job().training_file, **fields)
    job_id = bench.store.create_job(TENANT, request).job.id
    claim = bench.store.claim("runner", lease_s=60.0, job_id=job_id)
    assert claim is not None
    return job_id, claim


@pytest.mark.parametrize(
    ("stages", "extra"),
    [
        (["detect"], set()),
        (["detect", "purify"], {"purified_dataset.zip"}),
        (["purify", "retrain"], {"purified_dataset.zip", "mm_projector.safetensors"}),
    ],
)
def test_a_job_publishes_what_its_stages_give(
    bench: Bench, stages: list[AskedStage], extra: set[str]
) -> None:
    job_id, claim = ask_for(bench, stages=stages)
    assert supervise(claim, bench.running("succeed"), threading.Event()) is Outcome.SUCCEEDED
    key = bench.store.published_manifest(TENANT, job_id)
    assert key is not None
    published = Manifest.model_validate_json(bench.workplace.artifacts.get(key))
    names = {entry.name for entry in published.artifacts}
    assert names == {"report.json", "report.html", "samples.jsonl"} | extra


def test_an_engine_that_leaves_what_nobody_asked_for_is_not_believed(bench: Bench) -> None:
    job_id, claim = ask_for(bench, stages=["detect"])
    assert supervise(claim, bench.running("overdo"), threading.Event()) is Outcome.FAILED
    error = bench.store.get_job(TENANT, job_id).error
    assert error is not None and "unexpected content" in error.message
    assert bench.store.published_manifest(TENANT, job_id) is None


def test_the_engine_starts_from_the_uploaded_projector(bench: Bench) -> None:
    file_id, weights = new_id("file"), b"weights"
    blob = bench.workplace.artifacts.put_stream(upload_key(TENANT, file_id), [weights])
    facts = {"key": blob.key, "bytes": blob.bytes, "sha256": blob.sha256}
    draft = FileDraft(file_id, "mm_projector.safetensors", FilePurpose.CHECKPOINT, **facts)
    bench.store.add_file(TENANT, draft)
    _, claim = ask_for(bench, checkpoint_file=file_id)
    assert supervise(claim, bench.running("succeed"), threading.Event()) is Outcome.SUCCEEDED
    (spec_path,) = bench.workplace.settings.work_dir.rglob("spec.json")
    path = Path(json.loads(spec_path.read_text())["checkpoint_file"])
    assert path.suffix == ".safetensors" and path.read_bytes() == weights
