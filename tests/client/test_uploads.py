import zipfile
from pathlib import Path
from random import Random

import httpx2
import pytest

from client import uploads
from client.errors import Refused, Unavailable
from client.uploads import Addresses, Source
from schemas.files import FilePurpose
from schemas.uploads import MIN_PART
from tests.client.conftest import Service

PARTS = 4


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.json", "[]")
        archive.writestr("noise.png", Random(0).randbytes((PARTS - 1) * MIN_PART + 1000))
    monkeypatch.setattr("client.sdk.LARGE", path.stat().st_size - 1)
    return path


def puts(service: Service) -> list[int]:
    """The numbers of the parts that were sent."""
    sent = [request.url.path for request in service.wire.seen if request.method == "PUT"]
    return sorted(int(path.rsplit("/", 1)[1]) for path in sent)


def state(service: Service, path: Path) -> list[Path]:
    return list((path.parent / "state" / "disp" / "uploads").glob("*.json"))


def test_a_large_file_goes_in_parts_and_is_whole(service: Service, large: Path) -> None:
    file = service.client().upload(large, part_size=MIN_PART)
    assert puts(service) == list(range(1, PARTS + 1))
    key = service.store.file_blob("acme", file.id).key
    assert service.workplace.artifacts.get(key) == large.read_bytes()
    assert state(service, large) == []


def test_a_new_client_sends_only_what_the_dead_one_had_not(service: Service, large: Path) -> None:
    def dies_with_the_last_part(request: httpx2.Request) -> None:
        if request.url.path.endswith(f"/parts/{PARTS}"):
            raise httpx2.ConnectError("dead")

    service.wire.before = dies_with_the_last_part
    with pytest.raises(Unavailable):
        service.client(patience_s=0.2).upload(large, part_size=MIN_PART)
    assert len(state(service, large)) == 1
    service.wire.before = lambda request: None
    service.wire.seen.clear()
    file = service.client().upload(large, part_size=MIN_PART)
    assert puts(service) == [PARTS]
    key = service.store.file_blob("acme", file.id).key
    assert service.workplace.artifacts.get(key) == large.read_bytes()


def asked_for_addresses(service: Service) -> int:
    paths = [request.url.path for request in service.wire.seen]
    return sum(path.endswith("/part_urls") for path in paths)


def test_addresses_come_in_batches_and_a_failed_try_gets_a_new_one(
    service: Service, large: Path
) -> None:
    failed: list[str] = []

    def fails_once(request: httpx2.Request) -> None:
        if request.url.path.endswith("/parts/2") and not failed:
            failed.append(request.url.path)
            raise httpx2.ConnectError("dead")

    service.wire.before = fails_once
    service.client().upload(large, part_size=MIN_PART)
    assert set(puts(service)) == set(range(1, PARTS + 1))
    assert asked_for_addresses(service) == 2


def test_a_completion_whose_answer_was_lost_is_not_repeated_as_another_file(
    service: Service, large: Path
) -> None:
    def lost(response: httpx2.Response) -> None:
        if response.request.url.path.endswith("/complete"):
            raise httpx2.ReadError("reset")

    service.wire.after = lost
    with pytest.raises(Unavailable):
        service.client(patience_s=0.2).upload(large, part_size=MIN_PART)
    service.wire.after = lambda response: None
    file = service.client().upload(large, part_size=MIN_PART)
    assert [file.id] == [known.id for known in service.store.list_files("acme").data]


def test_a_file_that_changed_under_the_upload_is_refused_and_starts_anew(
    service: Service, large: Path
) -> None:
    source = Source.of(large, FilePurpose.FINE_TUNE)
    remembered = source.state_file(large.parent, "http://testserver")

    client = service.client()
    upload = uploads._begin_or_resume(client, source, remembered, MIN_PART)
    uploads._send_part(client, source, upload, 1, Addresses(client, upload.id, [1]))
    with large.open("r+b") as file:
        file.seek(100)
        file.write(b"changed")
    with pytest.raises(Refused):
        uploads.upload_in_parts(client, source, remembered, MIN_PART)
    assert not remembered.exists()
    assert client.upload(large, part_size=MIN_PART).bytes == source.bytes
