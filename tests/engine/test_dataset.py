import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from disp_engine.data.dataset import read_dataset
from disp_engine.data.writer import purified_record, write_dataset
from disp_engine.errors import InvalidDatasetError


def png(colour: tuple[int, int, int] = (255, 0, 0)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


def record(name: str = "a", **changes: Any) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": "<image>\nWhat?"},
        {"from": "gpt", "value": "A red square."},
    ]
    return {"id": name, "image": f"images/{name}.png", "conversations": turns} | changes


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_zip_tar_and_folder_give_the_same_samples(tmp_path: Path) -> None:
    members = {"data.json": json.dumps([record()]).encode(), "images/a.png": png()}
    plain = tmp_path / "folder"
    (plain / "images").mkdir(parents=True)
    for name, content in members.items():
        (plain / name).write_bytes(content)
    with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as archive:
        archive.add(plain, arcname=".")
    zipped = make_zip(tmp_path / "d.zip", members)
    found = [read_dataset(p, tmp_path / "pool") for p in (zipped, tmp_path / "d.tar.gz", plain)]
    assert len({dataset.sha256 for dataset in found}) == 1
    assert found[0].samples[0].turns[1].text == "A red square."


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": "images/none.png"}, "not in the archive"),
        ({"image": ["images/a.png", "images/a.png"]}, "1 <image> marks for 2 pictures"),
        ({"conversations": []}, "must be a list of turns"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "must be from 'human'"),
        ({"conversations": [{"from": "human", "value": "<image>"}]}, "has no answer"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused_alone_with_its_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    records = [record("a"), record("b", **changes)]
    members = {"data.json": json.dumps(records).encode(), "images/a.png": png()}
    dataset = read_dataset(make_zip(tmp_path / "d.zip", members), tmp_path / "pool")
    assert [sample.id for sample in dataset.samples] == ["a"]
    assert reason in dataset.refused["b"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"images/a.png": b"x"}, "exactly one .json"),
        ({"data.json": b"{}"}, "JSON list"),
        ({"data.json": b"[NaN]"}, "NaN is not JSON"),
        ({"data.json": b'[{"id": 1, "id": 2}]'}, "repeats a key"),
        ({"../data.json": b"[]"}, "stay inside"),
        ({"data.json": b"[]", "DATA.json": b"[]"}, "two members"),
    ],
)
def test_an_archive_that_cannot_be_read_is_refused_whole(
    tmp_path: Path, members: dict[str, bytes], reason: str
) -> None:
    with pytest.raises(InvalidDatasetError, match=reason):
        read_dataset(make_zip(tmp_path / "d.zip", members), tmp_path / "pool")


def test_a_link_in_a_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        link = tarfile.TarInfo("images/a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(InvalidDatasetError, match="only regular files"):
        read_dataset(tmp_path / "d.tar", tmp_path / "pool")


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_the_purified_dataset_comes_back_in_the_format_of_the_upload(
    tmp_path: Path, suffix: str
) -> None:
    members = {"data.json": json.dumps([record(extra=1)]).encode(), "images/a.png": png()}
    source = make_zip(tmp_path / "d.zip", members)
    if suffix == "tar":
        source = tmp_path / "d.tar"
        with tarfile.open(source, "w") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    dataset = read_dataset(source, tmp_path / "pool")
    sample = dataset.samples[0]
    rewritten = purified_record(sample, ["A green cross."])
    path = write_dataset(dataset, [rewritten], set(sample.images), tmp_path)
    assert path.name == f"purified_dataset.{suffix}"
    again = read_dataset(path, tmp_path / "pool2")
    assert again.samples[0].turns[1].text == "A green cross."
    assert again.samples[0].images == sample.images
    assert again.samples[0].record["extra"] == 1
    first = path.read_bytes()
    assert write_dataset(dataset, [rewritten], set(sample.images), tmp_path).read_bytes() == first
