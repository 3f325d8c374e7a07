"""Readings of uploaded files by the engine's own reader, and by some that die or never end."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest

from schemas.files import File, FilePurpose, FileStatus, FileValidation
from schemas.tasks import VALIDATE
from storage.connect import open_artifact_store, open_job_store
from storage.ids import new_id
from storage.interfaces import FileDraft, JobStore
from storage.keys import upload_key
from tests.engine.test_dataset import make_zip, png, record
from tests.workers.conftest import TENANT
from tests.workers.test_defense import defense
from workers.reading import FOLDER, keep_reading, read_one
from workers.settings import WorkerSettings
from workers.supervisor import Workplace

__all__ = ["defense"]
Wait = Callable[[Callable[[], bool]], None]
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
WAITS_TO_BE_ASKED = "import time; time.sleep(600)"


@dataclass(frozen=True)
class Desk:
    """Uploads, and what it takes to read them."""

    workplace: Workplace
    store: JobStore
    folder: Path

    def upload(self, members: dict[str, bytes]) -> str:
        file_id, path = new_id("file"), make_zip(self.folder / "data.zip", members)
        blob = self.workplace.artifacts.put_file(upload_key(TENANT, file_id), path)
        purpose = FilePurpose.FINE_TUNE
        draft = FileDraft(file_id, "data.zip", purpose, blob.key, blob.bytes, blob.sha256)
        return self.store.add_file(TENANT, draft).id

    def with_reader(self, program: str) -> Workplace:
        return replace(self.workplace, reader_command=(sys.executable, "-c", program))

    def file(self, file_id: str) -> File:
        return self.store.get_file(TENANT, file_id)

    def validation(self, file_id: str) -> FileValidation:
        found = self.store.file_validation(TENANT, file_id)
        assert found is not None
        return found


@pytest.fixture
def desk(settings: WorkerSettings, tmp_path: Path) -> Iterator[Desk]:
    store = open_job_store(settings.database_url)
    artifacts = open_artifact_store(settings.artifacts_url)
    yield Desk(Workplace(store, artifacts, settings), store, tmp_path)
    store.close()


def dataset(*records: object) -> dict[str, bytes]:
    return {"data.json": json.dumps(records).encode(), "images/a.png": png()}


def read(desk: Desk, workplace: Workplace | None = None) -> bool:
    return read_one(workplace or desk.workplace, threading.Event())


def test_of_a_good_archive_all_can_be_used(desk: Desk, settings: WorkerSettings) -> None:
    file_id = desk.upload(dataset(record()))
    assert read(desk)
    found = desk.validation(file_id)
    assert desk.file(file_id).status is FileStatus.PROCESSED
    assert (found.records, found.usable, found.fault_count, found.error) == (1, 1, 0, None)
    assert not (settings.work_dir / FOLDER).exists(), "nothing is kept but the findings"
    assert not read(desk), "it is not read twice"


def test_a_record_with_a_fault_is_told_and_the_others_can_be_used(desk: Desk) -> None:
    file_id = desk.upload(dataset(record(), record("b", image="images/none.png")))
    assert read(desk)
    found = desk.validation(file_id)
    assert desk.file(file_id).status is FileStatus.PROCESSED
    assert (found.records, found.usable, found.fault_count) == (2, 1, 1)
    (fault,) = found.faults
    assert "record 1" in fault.where and "not in the archive" in fault.reason


@pytest.mark.parametrize(
    ("members", "code", "reason"),
    [
        (dataset(record(conversations=[])), "invalid_dataset", "no record can be used"),
        ({"../data.json": b"[]"}, "archive_unsafe_member", "stay inside"),
        ({"data.json": b"[]", "x.pkl": b"x"}, "pickle_refused", "run code"),
    ],
)
def test_of_a_hopeless_archive_nothing_can_be_used_and_the_file_says_why(
    desk: Desk, members: dict[str, bytes], code: str, reason: str
) -> None:
    file_id = desk.upload(members)
    assert read(desk)
    file, refusal = desk.file(file_id), desk.validation(file_id).error
    assert refusal is not None and refusal.code == code and reason in refusal.message
    assert (file.status, file.status_details) == (FileStatus.ERROR, refusal.message)


def test_bytes_that_are_not_those_of_the_upload_are_told(desk: Desk) -> None:
    file_id = desk.upload(dataset(record()))
    desk.workplace.artifacts.put_stream(upload_key(TENANT, file_id), [b"spoilt"])
    assert read(desk)
    assert "upload it again" in str(desk.file(file_id).status_details)


def test_a_file_whose_reader_dies_three_times_is_in_error(desk: Desk) -> None:
    file_id = desk.upload(dataset(record()))
    for _ in range(3):
        assert read(desk, desk.with_reader(DIES))
        assert desk.file(file_id).status is FileStatus.PROCESSING, "the lease decides"
        with desk.store._engine.begin() as connection:  # type: ignore[attr-defined]
            connection.exec_driver_sql("UPDATE files SET lease_until = 1")
        desk.store.reconcile()
    assert desk.file(file_id).status is FileStatus.ERROR


def test_a_reader_that_has_to_stop_hands_the_file_back(desk: Desk, eventually: Wait) -> None:
    file_id, stop = desk.upload(dataset(record())), threading.Event()
    place = desk.with_reader(WAITS_TO_BE_ASKED)
    reader = threading.Thread(target=keep_reading, args=(place, stop))
    reader.start()
    eventually(lambda: desk.file(file_id).status is FileStatus.PROCESSING)
    stop.set()
    reader.join(10)
    assert not reader.is_alive() and desk.file(file_id).status is FileStatus.UPLOADED
    assert desk.store.reconcile().file_hints == (file_id,)


def test_a_file_that_is_deleted_while_it_is_read_leaves_nothing(
    desk: Desk, settings: WorkerSettings, eventually: Wait
) -> None:
    file_id = desk.upload(dataset(record()))
    place = desk.with_reader(WAITS_TO_BE_ASKED)
    reader = threading.Thread(target=read_one, args=(place, threading.Event()))
    reader.start()
    eventually(lambda: desk.file(file_id).status is FileStatus.PROCESSING)
    blob = desk.store.delete_file(TENANT, file_id)
    desk.workplace.artifacts.delete(blob.key)
    reader.join(10)
    assert not reader.is_alive() and not (settings.work_dir / FOLDER).exists()


def test_a_file_that_is_deleted_before_its_bytes_are_fetched_is_forgotten(desk: Desk) -> None:
    file_id = desk.upload(dataset(record()))
    artifacts = desk.workplace.artifacts
    opened = artifacts.open

    class Late(type(artifacts)):  # type: ignore[misc]
        def __init__(self) -> None: ...

        def open(self, key: str) -> Iterator[bytes]:
            desk.store.delete_file(TENANT, file_id)
            artifacts.delete(key)
            return opened(key)

    assert read(desk, replace(desk.workplace, artifacts=Late()))
    assert not read(desk)


def test_a_store_that_is_away_for_a_moment_does_not_end_the_reading(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, eventually: Wait
) -> None:
    file_id, stop, faults = desk.upload(dataset(record())), threading.Event(), [OSError("away")]
    claim = type(desk.store).claim_file

    def sometimes(store, owner, **options):  # type: ignore[no-untyped-def]
        if faults:
            raise faults.pop()
        return claim(store, owner, **options)

    monkeypatch.setattr(type(desk.store), "claim_file", sometimes)
    monkeypatch.setattr("workers.reading.PAUSE_AFTER_FAULT_S", 0.01)
    reader = threading.Thread(target=keep_reading, args=(desk.workplace, stop))
    reader.start()
    eventually(lambda: desk.file(file_id).status is FileStatus.PROCESSED)
    stop.set()
    reader.join(10)


def test_a_hint_reads_its_file_and_a_stale_one_does_nothing(
    desk: Desk, defense: ModuleType
) -> None:
    from workers.tasks.files import validate

    defense.workplace.cache_clear()
    first, second = (desk.upload(dataset(record())) for _ in range(2))
    assert defense.app.tasks[VALIDATE].name == validate.name == VALIDATE
    for _ in range(2):
        validate(second)
    defense.workplace().store.close()
    defense.workplace.cache_clear()
    assert desk.file(second).status is FileStatus.PROCESSED
    assert desk.file(first).status is FileStatus.UPLOADED
