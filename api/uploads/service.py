"""Beginning, feeding and completing uploads; at no time is more than a little in memory."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from itertools import pairwise
from typing import Any

from fastapi.concurrency import run_in_threadpool

from api.errors import PayloadTooLarge, UnsafeFormat, UnsupportedFormat
from api.files.archives import HEAD
from api.files.service import clean_filename, have_read, require_format
from api.gateway import Gateway
from schemas.files import File
from schemas.uploads import (
    MAX_PARTS,
    PartUrl,
    PartUrls,
    Upload,
    UploadComplete,
    UploadCreate,
    UploadPart,
)
from storage.errors import (
    DigestMismatch,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    NotFound,
    PartConflict,
    UploadIncomplete,
    UploadNotPending,
)
from storage.ids import new_id
from storage.interfaces import Idempotency
from storage.keys import upload_key
from storage.uploads import HeldPart, PartRecord, PartWriter, UploadDraft, UploadRecord

CHUNK = 1 << 20


def create(
    gateway: Gateway, tenant: str, request: UploadCreate, idempotency: Idempotency | None
) -> tuple[Upload, bool]:
    """Begin an upload in the artifact store, then give it a row; tell whether it was there."""
    if request.bytes > MAX_PARTS * request.part_size:
        raise PayloadTooLarge()
    file_id = new_id("file")
    key = upload_key(tenant, file_id)
    draft = UploadDraft(
        id=new_id("upload"),
        file_id=file_id,
        key=key,
        handle=gateway.artifacts.parts.begin(key),
        filename=clean_filename(request.filename),
        purpose=request.purpose,
        bytes=request.bytes,
        part_size=request.part_size,
        sha256=request.sha256,
    )
    try:
        record = gateway.jobs.create_upload(
            tenant, draft, ttl_s=gateway.upload_ttl_s, idempotency=idempotency
        )
    except (IdempotencyKeyReused, IdempotencyInFlight):
        gateway.artifacts.parts.abort(key, draft.handle)
        raise
    if record.id == draft.id:
        return _upload(record, []), False
    gateway.artifacts.parts.abort(key, draft.handle)
    return get(gateway, tenant, record.id), True


def get(gateway: Gateway, tenant: str, upload_id: str) -> Upload:
    """Return an upload with the parts that are held."""
    record = gateway.jobs.get_upload(tenant, upload_id)
    if record.status == "completed":
        return _completed(gateway, record)
    return _upload(record, _held(gateway, record) if record.status == "pending" else [])


async def receive(
    gateway: Gateway,
    tenant: str,
    upload_id: str,
    number: int | None,
    chunks: AsyncIterator[bytes],
    sha256: str | None = None,
) -> UploadPart:
    """Store one part as it comes; without a number it is the next one.

    A part that is held already is compared, not written again. One with a number must have the
    length that its number gives it; `UploadIncomplete` otherwise.
    """
    record = await run_in_threadpool(gateway.jobs.get_upload, tenant, upload_id)
    _require_pending(record)
    length = None if number is None else _length(record, number)
    if number is None:
        number = await run_in_threadpool(_next_number, gateway, record)
    with ExitStack() as stack:
        target = await run_in_threadpool(_open_part, gateway, record, number, stack)
        part = _Incoming(record, number, target, length)
        async for pieces in _gathered(chunks):
            await run_in_threadpool(part.take, pieces)
        return await run_in_threadpool(part.store, gateway, sha256)


def part_urls(gateway: Gateway, tenant: str, upload_id: str, numbers: Sequence[int]) -> PartUrls:
    """Return where each part can be sent: to the store itself if it takes parts, else to us."""
    record = gateway.jobs.get_upload(tenant, upload_id)
    _require_pending(record)
    return PartUrls(data=[_part_url(gateway, record, number) for number in numbers])


def complete(gateway: Gateway, tenant: str, upload_id: str, request: UploadComplete) -> Upload:
    """Make the parts one file, if they are what was announced; idempotent.

    Bytes with another digest, or of a format that does not suit the purpose, cancel the upload.
    """
    record = gateway.jobs.get_upload(tenant, upload_id)
    if record.status == "completed":
        return _completed(gateway, record)
    _require_pending(record)
    parts = _chosen(_held(gateway, record), request.part_ids)
    if sum(part.bytes for part in parts) != record.bytes:
        raise UploadIncomplete(upload_id)
    placed = [(_offset(record, part.number), part) for part in parts]
    gateway.artifacts.parts.assemble(record.key, record.handle, placed)
    try:
        sha256 = _verified(gateway, record, request)
        have_read(gateway, gateway.jobs.complete_upload(tenant, upload_id, sha256))
    except (DigestMismatch, UnsafeFormat, UnsupportedFormat):
        gateway.jobs.cancel_upload(tenant, upload_id)
        sweep(gateway, record)
        raise
    except UploadNotPending:
        sweep(gateway, record)
        raise
    return _completed(gateway, gateway.jobs.get_upload(tenant, upload_id))


def cancel(gateway: Gateway, tenant: str, upload_id: str) -> Upload:
    """End an upload and forget its parts."""
    record = gateway.jobs.cancel_upload(tenant, upload_id)
    sweep(gateway, record)
    return _upload(record, [])


def sweep(gateway: Gateway, record: UploadRecord) -> None:
    """Delete what an upload that ended without a file has left in the artifact store."""
    gateway.artifacts.parts.abort(record.key, record.handle)
    gateway.artifacts.delete(record.key)
    gateway.jobs.mark_swept(record.id)


class _Incoming:
    """One part on its way: into `target`, or past it when it is held already."""

    def __init__(
        self,
        record: UploadRecord,
        number: int,
        target: PartWriter | PartRecord,
        length: int | None,
    ) -> None:
        self._record, self._number, self._target = record, number, target
        self._length = length
        self._digest = hashlib.sha256()
        self._bytes = 0

    def take(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._bytes += len(piece)
            if self._bytes > self._record.part_size:
                raise PayloadTooLarge()
            self._digest.update(piece)
            if not isinstance(self._target, PartRecord):
                self._target.write(piece)

    def store(self, gateway: Gateway, announced: str | None) -> UploadPart:
        sha256 = self._digest.hexdigest()
        if announced is not None and announced != sha256:
            raise DigestMismatch(self._number)
        if isinstance(self._target, PartRecord):
            if self._target.sha256 != sha256:
                raise PartConflict(self._number)
            return _part(self._record, self._target)
        if self._length not in (None, self._bytes):
            raise UploadIncomplete(self._number)
        held = HeldPart(self._number, self._bytes, self._target.commit(), sha256)
        return _part(self._record, gateway.jobs.add_part(self._record.id, held))


def _open_part(
    gateway: Gateway, record: UploadRecord, number: int, stack: ExitStack
) -> PartWriter | PartRecord:
    """Return the part if it is held with a digest, else a writer that nobody else has."""
    store, offset = gateway.artifacts.parts, _offset(record, number)
    writer = stack.enter_context(store.writer(record.key, record.handle, number, offset))
    for part in gateway.jobs.list_parts(record.id):
        if part.number == number and part.sha256 is not None:
            return part
    return writer


def _next_number(gateway: Gateway, record: UploadRecord) -> int:
    number = max((part.number for part in gateway.jobs.list_parts(record.id)), default=0) + 1
    if number > MAX_PARTS:
        raise PayloadTooLarge()
    return number


def _held(gateway: Gateway, record: UploadRecord) -> Sequence[PartRecord]:
    """Return all parts; those that reached the store past the gateway are given rows."""
    rows = gateway.jobs.list_parts(record.id)
    known = {(row.number, row.tag) for row in rows}
    found = gateway.artifacts.parts.held(record.key, record.handle)
    unknown = [part for part in found if (part.number, part.tag) not in known]
    for part in unknown:
        gateway.jobs.add_part(record.id, part)
    return gateway.jobs.list_parts(record.id) if unknown else rows


def _part_url(gateway: Gateway, record: UploadRecord, number: int) -> PartUrl:
    length = _length(record, number)
    presigned = gateway.artifacts.parts.part_url(record.key, record.handle, number, length)
    url = presigned or f"/v1/uploads/{record.id}/parts/{number}"
    return PartUrl(number=number, bytes=length, url=url)


def _length(record: UploadRecord, number: int) -> int:
    """Return how long a part of this number is, or raise `NotFound` behind the last one."""
    length = min(record.part_size, record.bytes - _offset(record, number))
    if length <= 0:
        raise NotFound(f"part {number}")
    return length


def _chosen(held: Sequence[PartRecord], ids: Sequence[str] | None) -> Sequence[PartRecord]:
    """Return the parts that were named, which must be in the order of their numbers."""
    if ids is None:
        return held
    known = {part.id: part for part in held}
    if not set(ids) <= set(known):
        raise UploadIncomplete("part_ids")
    chosen = [known[part_id] for part_id in ids]
    if any(a.number >= b.number for a, b in pairwise(chosen)):
        raise UploadIncomplete("part_ids")
    return chosen


def _verified(gateway: Gateway, record: UploadRecord, request: UploadComplete) -> str:
    """Read the object once; return its sha256 if all that was announced of it is true."""
    digests: dict[str, Any] = {"sha256": hashlib.sha256()}
    if request.md5 is not None:
        digests["md5"] = hashlib.md5(usedforsecurity=False)
    head = b""
    for chunk in gateway.artifacts.open(record.key):
        if len(head) < HEAD:
            head += chunk[:HEAD]
        for digest in digests.values():
            digest.update(chunk)
    found = {name: digest.hexdigest() for name, digest in digests.items()}
    announced = (("sha256", record.sha256), ("sha256", request.sha256), ("md5", request.md5))
    if any(value is not None and value != found[name] for name, value in announced):
        raise DigestMismatch(record.id)
    require_format(BytesIO(head), record.purpose)
    return str(found["sha256"])


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[Sequence[bytes]]:
    """Gather as much of what the socket gives as is worth a thread's while; copy nothing."""
    pieces: list[bytes] = []
    held = 0
    async for chunk in chunks:
        pieces.append(chunk)
        held += len(chunk)
        if held >= CHUNK:
            yield pieces
            pieces, held = [], 0
    if pieces:
        yield pieces


def _require_pending(record: UploadRecord) -> None:
    if record.status != "pending":
        raise UploadNotPending(record.id)


def _offset(record: UploadRecord, number: int) -> int:
    return (number - 1) * record.part_size


def _completed(gateway: Gateway, record: UploadRecord) -> Upload:
    """A completed upload stays one when its file is deleted later."""
    try:
        file: File | None = gateway.jobs.get_file(record.tenant, record.file_id)
    except NotFound:
        file = None
    return _upload(record, gateway.jobs.list_parts(record.id), file)


def _upload(record: UploadRecord, parts: Sequence[PartRecord], file: File | None = None) -> Upload:
    return Upload(
        id=record.id,
        bytes=record.bytes,
        created_at=int(record.created_at),
        expires_at=int(record.expires_at),
        filename=record.filename,
        purpose=record.purpose,
        status=record.status,
        part_size=record.part_size,
        parts=[_part(record, part) for part in parts],
        file=file,
    )


def _part(record: UploadRecord, part: PartRecord) -> UploadPart:
    return UploadPart(
        id=part.id,
        created_at=int(part.created_at),
        upload_id=record.id,
        number=part.number,
        bytes=part.bytes,
        sha256=part.sha256,
    )
