from concurrent.futures import ThreadPoolExecutor

import pytest

from schemas.files import FilePurpose
from storage.errors import NotFound, UploadNotPending
from storage.ids import new_id
from storage.uploads import HeldPart, UploadDraft
from tests.storage.world import STRANGER, TENANT


def begin(store, ttl_s=60.0):
    draft = UploadDraft(
        id=new_id("upload"),
        file_id=new_id("file"),
        key="k",
        handle="h",
        filename="a.zip",
        purpose=FilePurpose.FINE_TUNE,
        bytes=7,
        part_size=5,
        sha256=None,
    )
    return store.create_upload(TENANT, draft, ttl_s=ttl_s)


def test_parts_are_listed_by_number_and_the_same_part_keeps_its_row(store):
    upload = begin(store)
    second = store.add_part(upload.id, HeldPart(2, 2, "b", "02"))
    first = store.add_part(upload.id, HeldPart(1, 5, "a", "01"))
    assert store.add_part(upload.id, HeldPart(2, 2, "b", "02")) == second
    assert store.list_parts(upload.id) == [first, second]
    replaced = store.add_part(upload.id, HeldPart(2, 2, "c"))
    assert (replaced.tag, replaced.sha256, replaced.id != second.id) == ("c", None, True)


def test_a_completed_upload_is_one_file_however_often_it_is_completed(store):
    upload = begin(store)
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: store.complete_upload(TENANT, upload.id, "ab"), range(4)))
    assert {file.id for file in files} == {upload.file_id}
    assert store.get_file(TENANT, upload.file_id).bytes == 7
    assert store.get_upload(TENANT, upload.id).status == "completed"
    for late in (store.cancel_upload, lambda t, u: store.add_part(u, HeldPart(1, 5, "a"))):
        with pytest.raises(UploadNotPending):
            late(TENANT, upload.id)
    assert store.abandoned_uploads() == []


@pytest.mark.parametrize("end", ["cancel", "expire"])
def test_an_upload_that_ended_without_a_file_is_swept_once(store, end):
    upload = begin(store, ttl_s=-1.0 if end == "expire" else 60.0)
    if end == "cancel":
        store.cancel_upload(TENANT, upload.id)
    assert [found.id for found in store.abandoned_uploads()] == [upload.id]
    for late in (
        lambda: store.add_part(upload.id, HeldPart(1, 5, "a")),
        lambda: store.complete_upload(TENANT, upload.id, "ab"),
    ):
        with pytest.raises(UploadNotPending):
            late()
    store.mark_swept(upload.id)
    assert store.abandoned_uploads() == []


def test_another_tenants_upload_does_not_exist(store):
    upload = begin(store)
    for look in (store.get_upload, store.cancel_upload):
        with pytest.raises(NotFound):
            look(STRANGER, upload.id)
    with pytest.raises(NotFound):
        store.complete_upload(STRANGER, upload.id, "ab")
