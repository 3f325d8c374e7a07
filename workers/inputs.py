"""Uploaded files on the local disk, named by their content and checked each time they are used."""

import hashlib
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from storage.interfaces import ArtifactStore, FileBlob
from workers.context import JobContext


class InputCorrupted(Exception):
    """The stored bytes of an uploaded file do not have its sha256: upload it again."""


def materialise(
    artifacts: ArtifactStore, blob: FileBlob, folder: Path, context: JobContext[Any]
) -> Path:
    """Return the path of the file's bytes below `folder`, fetched unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{blob.sha256}{kind_suffix(blob.filename)}"
    if path.exists() and _sha256(path, context) == blob.sha256:
        return path
    part = folder / f".{uuid4().hex}.part"
    try:
        if _fetch(artifacts, blob, part, context) != blob.sha256:
            raise InputCorrupted(blob.id)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def kind_suffix(filename: str) -> str:
    """The engine tells files apart by content; the suffix only keeps the file readable."""
    known = (".zip", ".safetensors")
    return next((suffix for suffix in known if filename.lower().endswith(suffix)), ".tar")


def _fetch(artifacts: ArtifactStore, blob: FileBlob, part: Path, context: JobContext[Any]) -> str:
    digest = hashlib.sha256()
    with part.open("wb") as file:
        for chunk in artifacts.open(blob.key):
            context.check()
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _sha256(path: Path, context: JobContext[Any]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            context.check()
            digest.update(chunk)
    return digest.hexdigest()
