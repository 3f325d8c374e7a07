"""Storing, finding and deleting uploaded datasets and projectors."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from api.downloads import Download
from api.errors import FileNotValidated, NotADataset, UnsupportedFormat
from api.files.archives import sniff
from api.files.weights import require_safetensors
from api.gateway import Gateway
from api.idempotency import Fingerprint
from schemas.files import File, FileDeleted, FilePurpose, FileStatus, FileValidation
from storage.errors import IdempotencyInFlight, IdempotencyKeyReused
from storage.ids import new_id
from storage.interfaces import FileDraft
from storage.keys import upload_key

CHUNK = 1 << 20
MEDIA_TYPES = {".zip": "application/zip", ".tar": "application/x-tar", ".gz": "application/gzip"}


@dataclass(frozen=True)
class CreatedFile:
    """A file as first answered; `replayed` when the Idempotency-Key had made it earlier."""

    file: File
    replayed: bool


def store_upload(
    gateway: Gateway,
    tenant: str,
    stream: BinaryIO,
    filename: str,
    purpose: FilePurpose,
    key: Fingerprint,
) -> CreatedFile:
    """Store a file's bytes and then its row; refuse what cannot be what it is for.

    The bytes of a call whose Idempotency-Key was used before are dropped again.
    """
    require_format(stream, purpose)
    file_id = new_id("file")
    blob = gateway.artifacts.put_stream(upload_key(tenant, file_id), _chunks(stream))
    draft = FileDraft(
        id=file_id,
        filename=clean_filename(filename),
        purpose=purpose,
        key=blob.key,
        bytes=blob.bytes,
        sha256=blob.sha256,
    )
    told = f"{draft.purpose}\n{draft.filename}\n{draft.sha256}".encode()
    try:
        file = gateway.jobs.add_file(tenant, draft, key.of(told))
    except (IdempotencyKeyReused, IdempotencyInFlight):
        gateway.artifacts.delete(blob.key)
        raise
    replayed = file.id != file_id
    if replayed:
        gateway.artifacts.delete(blob.key)
    else:
        have_read(gateway, file)
    return CreatedFile(file, replayed)


def have_read(gateway: Gateway, file: File) -> None:
    """Hint at a file that waits to be read."""
    if file.status is FileStatus.UPLOADED:
        gateway.queue.hint_file(file.id)


def require_format(stream: BinaryIO, purpose: FilePurpose) -> None:
    """Refuse a checkpoint that is not safetensors, and a dataset that is no archive."""
    if purpose is FilePurpose.CHECKPOINT:
        require_safetensors(stream)
    elif sniff(stream) is None:
        raise UnsupportedFormat()


def delete(gateway: Gateway, tenant: str, file_id: str) -> FileDeleted:
    """Forget the row first: bytes without a row are waste, a row without bytes is a lie."""
    blob = gateway.jobs.delete_file(tenant, file_id)
    gateway.artifacts.delete(blob.key)
    return FileDeleted(id=file_id)


def validation(gateway: Gateway, tenant: str, file_id: str) -> FileValidation:
    """Return what was found in a dataset, or why nothing is known."""
    if gateway.jobs.get_file(tenant, file_id).purpose is FilePurpose.CHECKPOINT:
        raise NotADataset()
    found = gateway.jobs.file_validation(tenant, file_id)
    if found is None:
        raise FileNotValidated()
    return found


def content(gateway: Gateway, tenant: str, file_id: str) -> Download:
    """Return what to send when a client wants its bytes back."""
    blob = gateway.jobs.file_blob(tenant, file_id)
    suffix = blob.filename[blob.filename.rfind(".") :].lower()
    media_type = MEDIA_TYPES.get(suffix, "application/octet-stream")
    return Download(blob.key, blob.bytes, blob.sha256, media_type, filename=blob.filename)


def clean_filename(name: str) -> str:
    """Return the last part of a path, printable and at most 255 characters."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(letter for letter in last if letter.isprintable())
    return printable[-255:] or "upload"


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk
