"""Laws that hold for every artifact store."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.errors import AlreadyExists, KeyRefused, NotFound
from storage.s3 import S3ArtifactStore

LONG = bytes(range(256)) * 50_000
KEY = "tenants/acme/jobs/job_1/manifest.json"


def test_what_is_put_is_what_is_got(artifacts, tmp_path):
    path = tmp_path / "long"
    path.write_bytes(LONG)
    blob = artifacts.put_file(KEY, path)
    assert artifacts.get(KEY) == LONG, "law: get returns the bytes that were put"
    assert (blob.bytes, blob.sha256) == (len(LONG), hashlib.sha256(LONG).hexdigest())
    assert artifacts.size(KEY) == len(LONG)


@pytest.mark.parametrize("chunks", [[], [b""], [b"a", b"", b"bc"], [LONG, LONG]])
def test_a_stream_is_its_chunks_joined(artifacts, chunks):
    whole = b"".join(chunks)
    blob = artifacts.put_stream(KEY, iter(chunks))
    assert artifacts.get(KEY) == whole, "law: chunk boundaries leave no trace"
    assert (blob.bytes, blob.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


def test_a_second_put_replaces_the_first(artifacts):
    artifacts.put_stream(KEY, [b"first, longer"])
    artifacts.put_stream(KEY, [b"second"])
    assert artifacts.get(KEY) == b"second", "law: put overwrites as a whole"


def test_a_stream_that_breaks_off_leaves_nothing(artifacts):
    def broken():
        yield LONG
        raise OSError("the client went away")

    with pytest.raises(OSError, match="went away"):
        artifacts.put_stream(KEY, broken())
    assert not artifacts.exists(KEY), "law: a put is whole or absent"


def test_a_stream_that_breaks_off_leaves_what_was_there(artifacts):
    def broken():
        yield b"new"
        raise OSError("the client went away")

    artifacts.put_stream(KEY, [b"old"])
    with pytest.raises(OSError, match="went away"):
        artifacts.put_stream(KEY, broken())
    assert artifacts.get(KEY) == b"old", "law: a failed put does not destroy"


def test_create_refuses_a_key_that_is_taken(artifacts):
    artifacts.create(KEY, b"first")
    with pytest.raises(AlreadyExists):
        artifacts.create(KEY, b"second")
    assert artifacts.get(KEY) == b"first", "law: created objects are immutable"


def test_of_many_creators_one_stays(artifacts):
    def attempt(number):
        try:
            artifacts.create(KEY, str(number).encode())
        except AlreadyExists:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [n for n in pool.map(attempt, range(16)) if n is not None]
    assert int(artifacts.get(KEY)) in winners, "law: what stays is a winner's, and whole"
    if not isinstance(artifacts, S3ArtifactStore):
        assert len(winners) == 1, "law: create has one winner where the store is ours"
    with pytest.raises(AlreadyExists):
        artifacts.create(KEY, b"late")


@pytest.mark.parametrize(
    ("start", "length"), [(0, None), (0, 1), (5, 10), (len(LONG) - 3, 100), (len(LONG), 1), (3, 0)]
)
def test_a_range_is_a_slice(artifacts, start, length):
    artifacts.put_stream(KEY, [LONG])
    end = None if length is None else start + length
    assert b"".join(artifacts.open(KEY, start=start, length=length)) == LONG[start:end]


def test_what_is_absent_is_not_found_at_the_call(artifacts):
    for look in (artifacts.get, artifacts.open, artifacts.size):
        with pytest.raises(NotFound):
            look("absent")
    assert not artifacts.exists("absent")


def test_deleting_is_idempotent(artifacts):
    artifacts.create(KEY, b"x")
    artifacts.delete(KEY)
    artifacts.delete(KEY)
    assert not artifacts.exists(KEY), "law: a deleted key is gone"


@pytest.mark.parametrize(
    "key", ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "a/\x00", "a\\b"]
)
def test_a_key_that_leaves_the_store_is_refused(artifacts, tmp_path, key):
    calls = (
        lambda: artifacts.put_stream(key, [b"x"]),
        lambda: artifacts.create(key, b"x"),
        lambda: artifacts.get(key),
        lambda: artifacts.delete(key),
    )
    for call in calls:
        with pytest.raises(KeyRefused):
            call()
    assert not (tmp_path / "x").exists()
