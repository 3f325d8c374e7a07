"""Two workers with disks of their own and the real engine: the artifacts of one alone."""

import threading
import time
from pathlib import Path

from client.config import MODEL
from disp_engine import registry
from disp_engine.attacks.poison import PoisonedSet, build_demo
from schemas.artifacts import Manifest
from schemas.files import FilePurpose
from schemas.requests import DefenseJobCreate, DispHyperparameters, Method
from storage.connect import open_artifact_store, open_job_store
from storage.ids import new_id
from storage.interfaces import FileDraft, JobStore, ModelRecord
from storage.keys import upload_key
from storage.migrate import upgrade
from workers.context import Outcome
from workers.helping import help_out
from workers.settings import WorkerSettings
from workers.supervisor import Workplace, supervise

TENANT = "acme"
COMPARED = ("purified_dataset.zip", "mm_projector.safetensors", "samples.jsonl")
QUICK = DispHyperparameters(epochs=1, retrain_epochs=1, batch_size=8, micro_batch=2, probes=2)


def settings(root: Path, worker: str) -> WorkerSettings:
    return WorkerSettings(
        database_url=f"sqlite:///{root}/disp.db",
        artifacts_url=f"file://{root}/artifacts",
        work_dir=root / worker,
        engine_threads=1,
    )


def workplace(root: Path, worker: str) -> Workplace:
    given = settings(root, worker)
    store = open_job_store(given.database_url)
    return Workplace(store, open_artifact_store(given.artifacts_url), given)


def add_job(place: Workplace, store: JobStore, data: PoisonedSet) -> str:
    file_id = new_id("file")
    blob = place.artifacts.put_file(upload_key(TENANT, file_id), data.training)
    draft = FileDraft(
        id=file_id,
        filename=data.training.name,
        purpose=FilePurpose.FINE_TUNE,
        key=blob.key,
        bytes=blob.bytes,
        sha256=blob.sha256,
    )
    store.add_file(TENANT, draft)
    body = DefenseJobCreate(
        model=MODEL, training_file=file_id, method=Method(hyperparameters=QUICK), seed=7
    )
    return store.create_job(TENANT, body).job.id


def artifacts(root: Path, data: PoisonedSet, *, helpers: int) -> tuple[dict[str, str], list[bool]]:
    """Hashes of what a job gives, and which of the helpers found something to do."""
    upgrade(f"sqlite:///{root}/disp.db")
    place = workplace(root, "first")
    store = open_job_store(place.settings.database_url)
    [card] = [card for card in registry.builtin_models() if card["id"] == MODEL]
    kept = ("id", "family", "revision", "path", "defaults")
    store.register_model(ModelRecord(**{name: card[name] for name in kept}))
    job_id = add_job(place, store, data)
    helped: list[bool] = []
    ended = threading.Event()
    threads = [
        threading.Thread(target=lend_a_hand, args=(workplace(root, f"h{n}"), ended, helped))
        for n in range(helpers)
    ]
    for thread in threads:
        thread.start()
    claim = store.claim("first", lease_s=60.0)
    assert claim is not None
    outcome = supervise(claim, place, threading.Event())
    ended.set()
    for thread in threads:
        thread.join(120)
    assert outcome is Outcome.SUCCEEDED, store.get_job(TENANT, job_id).error
    key = store.published_manifest(TENANT, job_id)
    assert key is not None
    manifest = Manifest.model_validate_json(place.artifacts.get(key))
    files = {entry.name: entry.sha256 for entry in manifest.artifacts}
    return {name: files[name] for name in COMPARED}, helped


def lend_a_hand(place: Workplace, ended: threading.Event, helped: list[bool]) -> None:
    while not ended.is_set():
        if help_out(place, threading.Event()):
            helped.append(any(place.settings.work_dir.rglob("purify-*/*.json")))
            return
        time.sleep(0.05)


def test_a_shared_job_gives_the_very_bytes_of_one_worker_alone(tmp_path: Path) -> None:
    data = build_demo(tmp_path / "data", samples=96, test=4, seed=0)
    for name in ("alone", "shared"):
        (tmp_path / name).mkdir()
    alone, _ = artifacts(tmp_path / "alone", data, helpers=0)
    shared, helped = artifacts(tmp_path / "shared", data, helpers=1)
    assert shared == alone
    assert helped == [True], "the helper came too late to help"
