"""What a fault costs under either validation, and what is told of it."""

import json
from pathlib import Path

import pytest

from disp_engine.data.dataset import read_dataset
from disp_engine.data.writer import purified_record, write_dataset
from disp_engine.errors import MAX_FAULTS, InvalidDatasetError
from tests.engine.test_dataset import make_zip, png, record


def members(*records: object) -> dict[str, bytes]:
    return {"data.json": json.dumps(records, indent=1).encode(), "images/a.png": png()}


def test_strict_validation_lists_every_fault_with_member_line_and_record(tmp_path: Path) -> None:
    content = members(
        record("a"),
        record("a"),
        record("b", image="images/none.png"),
        record("c", image="images/bad.png"),
    ) | {"images/bad.png": b"GIF89a", "images/unused.png": png()}
    with pytest.raises(InvalidDatasetError) as refused:
        read_dataset(make_zip(tmp_path / "d.zip", content), tmp_path / "pool", "strict")
    faults = {fault.where.split(", line")[0]: fault for fault in refused.value.faults}
    told = [(fault.code, fault.reason) for fault in refused.value.faults]
    assert ("invalid_dataset", "the id 'a' is there twice") in told
    assert ("invalid_dataset", "picture 'images/none.png' is not in the archive") in told
    assert ("image_format", "picture 'images/bad.png': the picture is no PNG, JPEG or WebP") in told
    assert faults["'images/unused.png'"].reason == "no record names this member"
    assert len(told) == 4
    assert refused.value.code == "invalid_dataset"


def test_the_code_is_that_of_the_faults_where_they_all_have_the_same(tmp_path: Path) -> None:
    content = members(record("a")) | {"images/a.png": b"GIF89a"}
    with pytest.raises(InvalidDatasetError) as refused:
        read_dataset(make_zip(tmp_path / "d.zip", content), tmp_path / "pool", "strict")
    assert refused.value.code == "image_format"
    assert refused.value.faults[0].where == "data.json, line 2, record 0"


def test_quarantine_goes_on_with_the_good_samples_and_lists_the_others(tmp_path: Path) -> None:
    content = members(
        record("a"), record("a"), record("b", image="images/bad.png"), record("c", conversations=[])
    ) | {"images/bad.png": b"GIF89a", "images/unused.png": png()}
    dataset = read_dataset(make_zip(tmp_path / "d.zip", content), tmp_path / "pool")
    assert [sample.id for sample in dataset.samples] == ["a", "a (record 1)"]
    assert set(dataset.refused) == {"b", "c"}
    assert "no PNG, JPEG or WebP" in dataset.refused["b"]


def test_of_very_many_faults_the_first_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    content = members(*[{} for _ in range(MAX_FAULTS + 50)])
    del content["images/a.png"]
    with pytest.raises(InvalidDatasetError, match="150 faults") as refused:
        read_dataset(make_zip(tmp_path / "d.zip", content), tmp_path / "pool", "strict")
    assert len(refused.value.faults) == MAX_FAULTS


def test_lines_of_json_come_back_as_lines_of_json(tmp_path: Path) -> None:
    lines = "".join(json.dumps(record(name, image="images/a.png")) + "\n" for name in "ab")
    content = {"data.jsonl": lines.encode(), "images/a.png": png()}
    dataset = read_dataset(make_zip(tmp_path / "d.zip", content), tmp_path / "pool", "strict")
    records = [purified_record(sample, ["A cross."]) for sample in dataset.samples]
    path = write_dataset(dataset, records, set(dataset.samples[0].images), tmp_path)
    again = read_dataset(path, tmp_path / "pool2", "strict")
    assert again.records_member == "data.jsonl"
    assert [sample.turns[1].text for sample in again.samples] == ["A cross.", "A cross."]


def test_a_broken_line_of_json_costs_that_line_only(tmp_path: Path) -> None:
    good = json.dumps(record("a")).encode()
    content = {"data.jsonl": good + b"\n{]\n" + good[:-1], "images/a.png": png()}
    dataset = read_dataset(make_zip(tmp_path / "d.zip", content), tmp_path / "pool")
    assert len(dataset.samples) == 1 and len(dataset.refused) == 2


def test_records_are_read_the_same_however_the_text_is_cut_into_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(f"é{n}", image="images/a.png", score=-1.5e3, n=[n, None]) for n in range(5)]
    path = make_zip(tmp_path / "d.zip", members(*records))
    whole = read_dataset(path, tmp_path / "pool")
    for size in (1, 2, 7):
        monkeypatch.setattr("disp_engine.data.documents.CHUNK", size)
        cut = read_dataset(path, tmp_path / "pool")
        assert [s.record for s in cut.samples] == [s.record for s in whole.samples] == records
