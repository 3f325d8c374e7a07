"""What only a directory must promise: the new name and the bytes are on the disk at return."""

import os

import pytest

from storage.connect import open_artifact_store


@pytest.mark.parametrize("how", ["put", "create"])
def test_bytes_and_names_are_synced_before_the_call_returns(tmp_path, monkeypatch, how):
    synced = []
    real = os.fsync

    def spy(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    root = tmp_path / "store"
    store = open_artifact_store(f"file://{root}")
    if how == "put":
        store.put_stream("a/b/object", [b"x"])
    else:
        store.create("a/b/object", b"x")
    assert synced[0].startswith(f"{root}/staging/")
    assert synced[1:] == [f"{root}/a/b", f"{root}/a", f"{root}"]
    assert list((root / "staging").iterdir()) == []
