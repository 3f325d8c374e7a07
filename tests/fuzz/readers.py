"""What each reader must do with any bytes: refuse them on purpose, or read what others read.

What a reader accepts is held against an independent one (zipfile, tarfile, json, Pillow,
safetensors): a difference is a fault, be it that the other refuses it or that it sees other things.
"""

import gzip
import io
import json
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from safetensors import deserialize

from disp_engine.data.budget import Budget
from disp_engine.data.developer import develop
from disp_engine.data.documents import read_records
from disp_engine.data.names import Names
from disp_engine.data.pictures import MAX_PIXELS, check_picture
from disp_engine.data.tars import GZIP, Gunzip, TarReader
from disp_engine.data.validation import RecordReader
from disp_engine.data.zips import zip_content, zip_entries
from disp_engine.errors import EngineError, PictureMalformed
from disp_engine.models.tensors import FLOATS, read_header
from tests.hostile import pictures, records, tars, zips

SMALL = 1 << 14


@dataclass(frozen=True)
class Reader:
    """Seeds to begin with; `check` raises EngineError for a refusal, anything else is a fault."""

    seeds: Callable[[], Sequence[bytes]]
    check: Callable[[bytes], None]
    repair: Callable[[bytes], bytes] = bytes


def check_zip(data: bytes) -> None:
    file, names, budget = io.BytesIO(data), Names(), Budget(len(data))
    entries = zip_entries(file, len(data))
    for entry in entries:
        names.add(entry.name.removesuffix("/"), folder=entry.is_folder)
    ours = {entry.name: b"".join(zip_content(file, entry, budget)) for entry in entries}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.infolist()) == len(entries)
        assert {info.filename: archive.read(info) for info in archive.infolist()} == ours


def check_tar(data: bytes) -> None:
    file, names, budget = io.BytesIO(data), Names(), Budget(len(data))
    reader = TarReader(Gunzip(file, budget) if data[:2] == GZIP else file, budget)
    ours = []
    for entry in reader.entries():
        name = entry.name.removesuffix("/") if entry.is_folder else entry.name
        names.add(name, folder=entry.is_folder)
        ours.append((name, b"".join(reader.content())))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        theirs = [(info.name, _content(archive, info)) for info in archive]
    assert theirs == ours


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    return file.read() if file else b""


def check_json(data: bytes) -> None:
    found = _records(data, "data.json")
    assert found == json.loads(data.decode())


def check_lines(data: bytes) -> None:
    found = _records(data, "data.jsonl")
    lines = (line.strip(" \t\r") for line in data.decode().split("\n"))
    assert found == [json.loads(line) for line in lines if line]


def _records(data: bytes, name: str) -> list[object]:
    """The values of the records, all of them sound; each is put to the judge of samples, too."""
    with tempfile.TemporaryDirectory() as folder:
        path, picture = Path(folder) / "document", Path(folder) / "picture"
        path.write_bytes(data)
        picture.write_bytes(records.PICTURE)
        judge = RecordReader(name, {"images/a.png": "picture"}, Path(folder), strict=False)
        parsed = list(read_records(path, name))
        for record in parsed:
            judge.take(record)
    if faulty := next((record for record in parsed if record.faults), None):
        raise EngineError(faulty.faults[0])
    assert len(judge.samples) + len(judge.refused) == len(parsed)
    return [record.value for record in parsed]


def check_image(data: bytes) -> None:
    form = check_picture(data)
    try:
        image = develop(data)
    except Exception as error:  # as the process that decodes has it; a crash or a hang is a fault
        raise PictureMalformed(type(error).__name__) from error
    assert image.mode == "RGB" and image.width * image.height <= MAX_PIXELS
    with Image.open(io.BytesIO(data)) as other:
        assert other.format == form and getattr(other, "n_frames", 1) == 1
        assert sorted(other.size) == sorted(image.size)


def check_safetensors(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(data)
        entries = read_header(path)
    if all(entry.dtype in FLOATS for entry in entries):  # others are refused when they are read
        theirs = {name: tuple(told["shape"]) for name, told in deserialize(data)}
        assert theirs == {entry.name: entry.shape for entry in entries}


def zip_seeds() -> list[bytes]:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("images")
        archive.writestr("images/a.txt", b"abc" * 50)
    return [out.getvalue(), *_small(zips.ZIPS)]


def tar_seeds() -> list[bytes]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("é" * 60)
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return [tars.tar(), gzip.compress(tars.tar(), mtime=0), out.getvalue(), *_small(tars.TARS)]


def json_seeds() -> list[bytes]:
    document = records.DOCUMENT
    return [
        document, b"[]", b"[1, 2.5, null, true]", document[:-1] + b",\n" + document[1:],
        b'[{"id": "\\ud83d\\ude00", "a": [1e3, -0.5]}]', b'[{"a": {"b": [[]]}}]',
    ]  # fmt: skip


def line_seeds() -> list[bytes]:
    return [records.LINE, records.LINE * 2, b'{"a": 1}\r\n\n[]\n', b"1\n2"]


def picture_seeds(form: str) -> Callable[[], Sequence[bytes]]:
    def make() -> list[bytes]:
        modes = {"PNG": ("RGB", "L", "P", "RGBA", "I;16", "1"), "JPEG": ("RGB", "L", "CMYK")}
        return [records.still(form, mode=mode) for mode in modes.get(form, ("RGB", "RGBA"))]

    return make


def tensor_seeds() -> list[bytes]:
    return [
        _safetensors({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        _safetensors(
            {
                "__metadata__": {"a": "b"},
                "x": {"dtype": "F16", "shape": [], "data_offsets": [0, 2]},
                "y": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [2, 6]},
            },
            bytes(6),
        ),
        _safetensors({}, b""),
    ]


def _safetensors(header: object, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _small(inputs: Sequence[zips.DataInput]) -> list[bytes]:
    """The hostile ones that are quick to make and to change."""
    slow = ("bomb", "overlapping")
    made = (given.make() for given in inputs if not any(word in given.name for word in slow))
    return [content for content in made if len(content) <= SMALL]


def repair_png(data: bytes) -> bytes:
    """Make the checksum of each part right."""
    content, at = bytearray(data), len(pictures.SIGNATURE)
    while at + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        end = at + 8 + size
        if end + 4 > len(content):
            break
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[at + 4 : end]))
        at = end + 4
    return bytes(content)


def repair_tar(data: bytes) -> bytes:
    """Make the sum of each header right."""
    blocks = [bytearray(data[at : at + 512]) for at in range(0, len(data), 512)]
    for block in blocks:
        if block[257:262] == b"ustar" and len(block) == 512:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


READERS = {
    "zip": Reader(zip_seeds, check_zip),
    "tar": Reader(tar_seeds, check_tar, repair_tar),
    "json": Reader(json_seeds, check_json),
    "jsonl": Reader(line_seeds, check_lines),
    "png": Reader(picture_seeds("PNG"), check_image, repair_png),
    "jpeg": Reader(picture_seeds("JPEG"), check_image),
    "webp": Reader(picture_seeds("WEBP"), check_image),
    "safetensors": Reader(tensor_seeds, check_safetensors),
}
