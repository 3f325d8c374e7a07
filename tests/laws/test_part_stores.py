"""Laws that hold for every store of parts."""

import time

import httpx2
import pytest

from storage.errors import PartBusy, UploadIncomplete
from storage.uploads import HeldPart

KEY = "tenants/acme/files/file_1"
SIZE = 5 << 20
FIRST, LAST = bytes(range(256)) * (SIZE // 256), b"the last part is short"


def put(parts, handle, number, data, offset=None):
    offset = (number - 1) * SIZE if offset is None else offset
    with parts.writer(KEY, handle, number, offset) as writer:
        for start in range(0, len(data), 1 << 20):
            writer.write(data[start : start + (1 << 20)])
        return offset, HeldPart(number, len(data), writer.commit())


def test_parts_become_one_object_in_the_order_of_their_numbers(artifacts):
    handle = artifacts.parts.begin(KEY)
    last = put(artifacts.parts, handle, 2, LAST)
    first = put(artifacts.parts, handle, 1, FIRST)
    assert not artifacts.exists(KEY), "law: no part shows before all are assembled"
    artifacts.parts.assemble(KEY, handle, [first, last])
    assert artifacts.get(KEY) == FIRST + LAST
    artifacts.parts.assemble(KEY, handle, [first, last])
    assert artifacts.get(KEY) == FIRST + LAST, "law: assembling twice is assembling once"


def test_numbers_may_have_gaps(artifacts):
    handle = artifacts.parts.begin(KEY)
    parts = [put(artifacts.parts, handle, number, data) for number, data in ((2, FIRST), (7, LAST))]
    artifacts.parts.assemble(KEY, handle, parts)
    assert artifacts.get(KEY) == FIRST + LAST


def test_a_part_that_was_not_committed_may_be_written_again(artifacts):
    handle = artifacts.parts.begin(KEY)
    with pytest.raises(OSError, match="gone"), artifacts.parts.writer(KEY, handle, 1, 0) as writer:
        writer.write(b"X" * 100)
        raise OSError("the client is gone")
    artifacts.parts.assemble(KEY, handle, [put(artifacts.parts, handle, 1, b"short")])
    assert artifacts.get(KEY) == b"short"


def test_an_aborted_upload_cannot_be_assembled(artifacts):
    handle = artifacts.parts.begin(KEY)
    part = put(artifacts.parts, handle, 1, LAST)
    artifacts.parts.abort(KEY, handle)
    artifacts.parts.abort(KEY, handle)
    with pytest.raises(UploadIncomplete):
        artifacts.parts.assemble(KEY, handle, [part])
    assert not artifacts.exists(KEY)


def test_a_local_slot_has_one_writer_at_a_time(tmp_path):
    from storage.connect import open_artifact_store

    parts = open_artifact_store(f"file://{tmp_path}/artifacts").parts
    handle = parts.begin(KEY)
    first, second, rival = (parts.writer(KEY, handle, number, 0) for number in (1, 2, 1))
    with first, second, pytest.raises(PartBusy), rival:
        pass
    with parts.writer(KEY, handle, 1, 0):
        pass


@pytest.mark.parametrize("artifacts", ["s3"], indirect=True)
def test_a_presigned_part_has_exactly_the_signed_length(artifacts):
    handle = artifacts.parts.begin(KEY)
    url = artifacts.parts.part_url(KEY, handle, 1, len(LAST))
    assert httpx2.put(url, content=LAST + b"!").status_code == 403
    assert httpx2.put(url, content=LAST).status_code == 200
    [part] = artifacts.parts.held(KEY, handle)
    assert (part.number, part.bytes) == (1, len(LAST))
    artifacts.parts.assemble(KEY, handle, [(0, part)])
    url = artifacts.download_url(KEY, filename="a b.zip", media_type="application/zip")
    answer = httpx2.get(url, headers={"Range": "bytes=4-7"})
    assert (answer.status_code, answer.content) == (206, LAST[4:8])
    assert answer.headers["content-type"] == "application/zip"
    assert httpx2.get(url.replace("X-Amz-Expires=", "X-Amz-Expires=1")).status_code == 403


@pytest.mark.parametrize("artifacts", ["s3"], indirect=True)
def test_a_url_that_was_altered_or_has_expired_writes_and_reads_nothing(artifacts, monkeypatch):
    handle = artifacts.parts.begin(KEY)
    url = artifacts.parts.part_url(KEY, handle, 1, len(LAST))
    for altered in (
        url.replace("partNumber=1", "partNumber=2"),
        url.replace(KEY, "tenants/globex/files/file_1"),
        url.replace("X-Amz-Expires=", "X-Amz-Expires=9"),
    ):
        assert altered != url and httpx2.put(altered, content=LAST).status_code == 403, altered
    monkeypatch.setattr("storage.s3.PART_URL_S", 1)
    monkeypatch.setattr("storage.s3.URL_S", 1)
    url = artifacts.parts.part_url(KEY, handle, 1, len(LAST))
    artifacts.create("other", b"kept")
    read = artifacts.download_url("other", filename="a.zip", media_type="application/zip")
    time.sleep(2.1)
    assert httpx2.put(url, content=LAST).status_code == 403
    assert httpx2.get(read).status_code == 403
    assert artifacts.parts.held(KEY, handle) == []


@pytest.mark.parametrize("artifacts", ["s3"], indirect=True)
def test_a_part_below_the_minimum_that_is_not_the_last_is_refused(artifacts):
    handle = artifacts.parts.begin(KEY)
    parts = [put(artifacts.parts, handle, number, LAST) for number in (1, 2)]
    with pytest.raises(UploadIncomplete):
        artifacts.parts.assemble(KEY, handle, parts)
