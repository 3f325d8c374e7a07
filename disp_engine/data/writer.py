"""Writes a dataset back in the format it came in, byte for byte the same for the same content."""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from disp_engine.data.dataset import Dataset
from disp_engine.records import Sample

EPOCH = (1980, 1, 1, 0, 0, 0)


def purified_record(sample: Sample, responses: Sequence[str]) -> dict[str, Any]:
    """The sample's own JSON record with the assistant turns' texts replaced."""
    record = plain_copy(sample.record)
    for turn, response in zip(record["conversations"][1::2], responses, strict=True):
        turn["value"] = response
    return record


def plain_copy(record: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of a JSON object."""
    return dict(json.loads(json.dumps(record)))


def write_archive(path: Path, dataset: Dataset) -> Path:
    """Write the dataset's samples as a zip, whatever it came from."""
    records = [sample.record for sample in dataset.samples]
    used = {image for sample in dataset.samples for image in sample.images}
    _write_zip(path, _contents(dataset, records, used))
    return path


def write_dataset(
    dataset: Dataset, records: Sequence[Mapping[str, Any]], used: set[str], folder: Path
) -> Path:
    """Write `purified_dataset.zip` (or `.tar`) with `records` and the pictures in `used`."""
    suffix = "tar" if dataset.archive_kind == "tar" else "zip"
    path = folder / f"purified_dataset.{suffix}"
    write = _write_tar if suffix == "tar" else _write_zip
    write(path, _contents(dataset, records, used))
    return path


def _contents(
    dataset: Dataset, records: Sequence[Mapping[str, Any]], used: set[str]
) -> Iterator[tuple[str, bytes]]:
    yield dataset.records_member, _document(dataset.records_member, records).encode()
    for name, sha256 in sorted(dataset.members.items()):
        if sha256 in used:
            yield name, (dataset.pool / sha256).read_bytes()


def _document(name: str, records: Sequence[Mapping[str, Any]]) -> str:
    if name.lower().endswith(".jsonl"):
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return json.dumps(list(records), ensure_ascii=False, indent=1)


def _write_zip(path: Path, contents: Iterator[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents:
            stored = (
                zipfile.ZIP_DEFLATED
                if name.lower().endswith((".json", ".jsonl"))
                else zipfile.ZIP_STORED
            )
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, content, compress_type=stored)


def _write_tar(path: Path, contents: Iterator[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in contents:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
