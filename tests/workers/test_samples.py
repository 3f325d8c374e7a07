import json

import pytest

from schemas.artifacts import ArtifactEntry, Manifest
from storage.connect import open_artifact_store
from workers.samples import LONGEST, sample_entries

LINES = [
    {"id": "a", "status": "rewritten", "changed": True, "original": ["é one"], "purified": ["two"],
     "flagged": True, "score": 7.5},
    {"id": "b\0", "status": "quarantined", "reason": "broken"},
    {"id": "c", "status": "kept", "original": ["x" * 1000]},
]  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("end", ["\n", ""])
def test_every_line_has_an_entry_that_finds_it_again(tmp_path, monkeypatch, chunk, end):
    monkeypatch.setattr("storage.artifacts.CHUNK", chunk)
    store = open_artifact_store(f"file://{tmp_path}")
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in LINES) + end
    blob = store.put_stream("k", [text.encode()])
    item = ArtifactEntry(name="samples.jsonl", bytes=blob.bytes, sha256=blob.sha256,
                         media_type="application/jsonl", key="k")  # fmt: skip
    entries = list(sample_entries(store, Manifest(job_id="j", attempt=1, artifacts=[item])))
    for line, found in zip(LINES, entries, strict=True):
        again = b"".join(store.open("k", start=found.start, length=found.bytes))
        assert json.loads(again) == line
    first, second, third = entries
    assert (first.verdict, first.flagged, first.score) == ("changed", True, 7.5)
    assert (first.said, first.says) == ("é one", "two")
    assert (second.sample_id, second.verdict, second.score) == ("b\ufffd", None, None)
    assert len(third.said) == LONGEST and third.said.endswith("…")
