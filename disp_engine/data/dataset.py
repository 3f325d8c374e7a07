"""A LLaVA-format dataset in memory; its pictures lie in a pool, named by their sha256."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL.Image import Image

from disp_engine.data.archive import Member, kind, members
from disp_engine.data.budget import DOCUMENTS
from disp_engine.data.darkroom import darkroom
from disp_engine.data.documents import read_records
from disp_engine.data.validation import RecordReader, Validation
from disp_engine.digests import digest
from disp_engine.errors import InvalidDatasetError, Judgement
from disp_engine.samples import IMAGE_MARK as IMAGE_MARK
from disp_engine.samples import Sample

TOLD_EVERY = 500
Tell = Callable[[int, str], None]


@dataclass(frozen=True)
class Dataset:
    """Samples in their order, those refused with the reason, and where the pictures lie.

    `members` gives the sha256 of each member but the records; `records_member` is the name of the
    JSON file; `archive_kind` is `zip`, `tar` or `folder`; `judgement` tells what reading it found.
    """

    samples: Sequence[Sample]
    refused: Mapping[str, str]
    pool: Path = field(compare=False)
    members: Mapping[str, str] = field(default_factory=dict)
    records_member: str = "data.json"
    archive_kind: str = "zip"
    judgement: Judgement = field(default_factory=Judgement)

    @property
    def sha256(self) -> str:
        """Digest of all that training and rewriting read: texts and pictures, in order."""
        return content_sha256(self.samples)

    def image(self, sha256: str) -> Image:
        """Decode a picture as RGB, or say why it cannot be used."""
        return darkroom().develop((self.pool / sha256).read_bytes())


def read_dataset(
    path: Path,
    pool: Path,
    validation: Validation = "quarantine",
    tell: Tell = lambda done, unit: None,
) -> Dataset:
    """Read an archive or a folder in one pass, keeping pictures in `pool` by their hash.

    Raises InvalidDatasetError for what spoils the whole. A record that cannot be used alone is
    listed in `refused` and the others stay; under `strict` validation any fault spoils the whole.
    `tell` hears now and then how many members and records were read, and may raise to stop that.
    """
    pool.mkdir(parents=True, exist_ok=True)
    hashes = _unpack(path, pool, tell)
    name = _document(path, hashes)
    document = pool / hashes.pop(name)
    reader = RecordReader(name, hashes, pool, strict=validation == "strict")
    try:
        for count, parsed in enumerate(read_records(document, name), 1):
            reader.take(parsed)
            if count % TOLD_EVERY == 0:
                tell(count, "records")
        reader.finish()
    except InvalidDatasetError as error:
        error.judgement = reader.judgement
        raise
    found = (reader.samples, reader.refused, pool, hashes, name, kind(path))
    return Dataset(*found, reader.judgement)


def content_sha256(samples: Sequence[Sample]) -> str:
    """Digest of samples' texts and pictures, in order."""
    return digest([[s.id, list(s.images), [[t.role, t.text] for t in s.turns]] for s in samples])


def _unpack(path: Path, pool: Path, tell: Tell) -> dict[str, str]:
    """The members' names and hashes; a refusal names the archive."""
    hashes: dict[str, str] = {}
    try:
        for member in members(path):
            hashes[member.name] = _keep(member, pool)
            if len(hashes) % TOLD_EVERY == 0:
                tell(len(hashes), "members")
        return hashes
    except InvalidDatasetError as error:
        raise type(error)(f"{path.name}: {error}") from error


def _keep(member: Member, pool: Path) -> str:
    """Write a member into the pool, whole or not at all; return its sha256."""
    sha256 = hashlib.sha256()
    draft = pool / f".draft.{os.getpid()}"
    try:
        with draft.open("wb") as file:
            for chunk in member.chunks:
                sha256.update(chunk)
                file.write(chunk)
        os.replace(draft, pool / sha256.hexdigest())
    finally:
        draft.unlink(missing_ok=True)
    return sha256.hexdigest()


def _document(path: Path, hashes: Mapping[str, str]) -> str:
    found = sorted(n for n in hashes if PurePosixPath(n).suffix.lower() in DOCUMENTS)
    if len(found) != 1:
        listed = ", ".join(found[:5]) or "none"
        raise InvalidDatasetError(
            f"{path.name}: exactly one .json or .jsonl file with the records is expected; "
            f"found: {listed}{', …' if len(found) > 5 else ''}."
        )
    return found[0]
