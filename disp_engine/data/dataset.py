"""A LLaVA-format dataset in memory; its pictures lie in a pool, named by their sha256."""

import hashlib
import io
import json
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from disp_engine.data.archive import Member, kind, members
from disp_engine.errors import InvalidDatasetError, SampleError
from disp_engine.records import Sample, Turn
from disp_engine.stages import digest, write_atomically

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 32_000_000
UNREADABLE = (
    OSError, ValueError, SyntaxError, TypeError, IndexError, EOFError, struct.error, zlib.error,
    Warning, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's readers raise on files that are not pictures, or no longer."""
IMAGE_MARK = "<image>"


@dataclass(frozen=True)
class Dataset:
    """Samples in their order, those refused with the reason, and where the pictures lie.

    `members` gives the sha256 of each member but the records; `records_member` is the name of the
    JSON file; `archive_kind` is `zip`, `tar` or `folder`.
    """

    samples: Sequence[Sample]
    refused: Mapping[str, str]
    pool: Path = field(compare=False)
    members: Mapping[str, str] = field(default_factory=dict)
    records_member: str = "data.json"
    archive_kind: str = "zip"

    @property
    def sha256(self) -> str:
        """Digest of all that training and rewriting read: texts and pictures, in order."""
        return content_sha256(self.samples)

    def image(self, sha256: str) -> Image.Image:
        """Decode a picture as RGB, or say why it cannot be used."""
        return decode((self.pool / sha256).read_bytes())


def read_dataset(path: Path, pool: Path) -> Dataset:
    """Read an archive or a folder in one pass, keeping pictures in `pool` by their hash.

    Raises InvalidDatasetError for what spoils the whole; a record that cannot be used alone is
    listed in `refused` and the others stay.
    """
    pool.mkdir(parents=True, exist_ok=True)
    hashes: dict[str, str] = {}
    documents: dict[str, bytes] = {}
    for member in members(path):
        if PurePosixPath(member.name).suffix.lower() == ".json":
            documents[member.name] = member.read()
        else:
            hashes[member.name] = _keep(member, pool)
    name, records = _records(path, documents)
    samples, refused = _samples(records, hashes, PurePosixPath(name).parent)
    if not samples:
        raise InvalidDatasetError(f"{name}: no record can be used; the first: {_first(refused)}")
    return Dataset(samples, refused, pool, hashes, name, kind(path))


def content_sha256(samples: Sequence[Sample]) -> str:
    """Digest of samples' texts and pictures, in order."""
    return digest([[s.id, list(s.images), [[t.role, t.text] for t in s.turns]] for s in samples])


def decode(content: bytes) -> Image.Image:
    """Decode PNG, JPEG or WebP of reasonable size to RGB."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise SampleError(f"the picture has more than {MAX_PIXELS} pixels")
            return image.convert("RGB")
    except SampleError:
        raise
    except UNREADABLE as error:
        raise SampleError(f"the picture cannot be decoded: {error}") from error


def _keep(member: Member, pool: Path) -> str:
    content = member.read()
    sha256 = hashlib.sha256(content).hexdigest()
    if not (pool / sha256).exists():
        write_atomically(pool / sha256, content)
    return sha256


def _records(path: Path, documents: Mapping[str, bytes]) -> tuple[str, list[Any]]:
    if len(documents) != 1:
        found = ", ".join(sorted(documents)) or "none"
        raise InvalidDatasetError(
            f"{path.name}: exactly one .json file with the records is expected; found: {found}."
        )
    name, content = next(iter(documents.items()))
    try:
        records = json.loads(content, object_pairs_hook=_unique, parse_constant=_no_constant)
        json.dumps(records, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise InvalidDatasetError(f"{name}: not valid JSON: {error}.") from error
    if not isinstance(records, list):
        raise InvalidDatasetError(f"{name}: a JSON list of records is expected.")
    return name, records


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"the object with keys {sorted(found)} repeats a key")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _samples(
    records: Sequence[Any], hashes: Mapping[str, str], folder: PurePosixPath
) -> tuple[list[Sample], dict[str, str]]:
    samples: list[Sample] = []
    refused: dict[str, str] = {}
    seen: set[str] = set()
    for number, record in enumerate(records):
        given = record.get("id") if isinstance(record, dict) else None
        name = f"record {number}" if given is None else str(given)
        if name in seen:
            name = f"{name} (record {number})"
        seen.add(name)
        try:
            samples.append(_sample(name, record, hashes, folder))
        except SampleError as error:
            refused[name] = str(error)
    return samples, refused


def _sample(name: str, record: Any, hashes: Mapping[str, str], folder: PurePosixPath) -> Sample:
    if not isinstance(record, dict):
        raise SampleError("a record must be a JSON object")
    listed = record.get("image") or record.get("images") or []
    images = [listed] if isinstance(listed, str) else listed
    if not isinstance(images, list) or not all(isinstance(i, str) for i in images):
        raise SampleError("`image` must be a member name or a list of them")
    turns = _turns(record.get("conversations"))
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
    if marks != len(images):
        raise SampleError(f"{marks} {IMAGE_MARK} marks for {len(images)} pictures")
    return Sample(name, tuple(_find(i, hashes, folder) for i in images), turns, record)


def _turns(conversations: Any) -> tuple[Turn, ...]:
    if not isinstance(conversations, list) or not conversations:
        raise SampleError("`conversations` must be a list of turns")
    turns = []
    for number, turn in enumerate(conversations):
        expected = ("human", "gpt")[number % 2]
        if not isinstance(turn, dict) or turn.get("from") != expected:
            raise SampleError(f"turn {number} must be from {expected!r}")
        if not isinstance(turn.get("value"), str):
            raise SampleError(f"turn {number} has no text `value`")
        turns.append(Turn(expected, turn["value"]))  # type: ignore[arg-type]
    if len(turns) % 2:
        raise SampleError("the last question has no answer")
    if any(IMAGE_MARK in turn.text for turn in turns[1::2]):
        raise SampleError(f"an answer contains {IMAGE_MARK}")
    return tuple(turns)


def _find(name: str, hashes: Mapping[str, str], folder: PurePosixPath) -> str:
    for candidate in (name, str(folder / name), str(folder / "images" / name)):
        if candidate in hashes:
            return hashes[candidate]
    raise SampleError(f"picture {name!r} is not in the archive")


def _first(refused: Mapping[str, str]) -> str:
    return next((f"{name}: {why}" for name, why in refused.items()), "the list is empty.")
