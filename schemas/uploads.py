"""Uploads in parts, in the shape of OpenAI's; numbers, URLs and `sha256` are ours."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.files import File, FilePurpose, UploadablePurpose
from schemas.wire import Request, Resource

UploadStatus = Literal["pending", "completed", "cancelled", "expired"]
MIN_PART = 5 * 1024 * 1024
MAX_PART = 64 * 1024 * 1024
MAX_PARTS = 1000
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
PartId = Annotated[str, StringConstraints(pattern=r"^part_[0-9a-f]{32}$")]
PartNumber = Annotated[int, Field(ge=1, le=MAX_PARTS)]


class UploadCreate(Request):
    """The body of `POST /v1/uploads`; `part_size` is in bytes, the most that a part may have."""

    bytes: Annotated[int, Field(ge=1, le=MAX_PARTS * MAX_PART)]
    filename: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    mime_type: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    purpose: UploadablePurpose
    sha256: Sha256 | None = None
    part_size: Annotated[int, Field(ge=MIN_PART, le=MAX_PART)] = MAX_PART


class UploadPart(Resource):
    """A part that is held; no sha256 if its bytes went straight to the artifact store."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
    number: int
    bytes: int
    sha256: str | None = None


class Upload(Resource):
    """An upload with the parts that are held, and with its file once it is completed."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: FilePurpose
    status: UploadStatus
    part_size: int
    parts: list[UploadPart]
    file: File | None = None


class PartUrlsRequest(Request):
    """The body of `POST /v1/uploads/{id}/part_urls`."""

    numbers: Annotated[list[PartNumber], Field(min_length=1, max_length=MAX_PARTS)]


class PartUrl(Resource):
    """Where to PUT exactly `bytes` bytes.

    A URL without a host is the gateway's own and wants the API key; any other carries its own
    authorisation and must not be sent the key.
    """

    number: int
    bytes: int
    url: str


class PartUrls(Resource):
    """One URL for each number that was asked for."""

    object: Literal["list"] = "list"
    data: list[PartUrl]


class UploadComplete(Request):
    """The body of `POST /v1/uploads/{id}/complete`; without `part_ids` all parts by number."""

    part_ids: Annotated[list[PartId], Field(min_length=1, max_length=MAX_PARTS)] | None = None
    sha256: Sha256 | None = None
    md5: Md5 | None = None
