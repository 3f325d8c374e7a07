"""Bytes in an S3 bucket: obstore moves them, boto3 signs URLs and counts parts.

Nothing here needs more than a plain S3 service has: no conditional completion of an upload, no
If-Match, no POST policies, no tags, no lifecycle rules; digests are our own.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from obstore.store import S3Store

from storage.artifacts import ObjectArtifactStore, checked
from storage.errors import NotFound, StoreAway, UploadIncomplete
from storage.settings import S3Settings
from storage.uploads import HeldPart

URL_S = 600
PART_URL_S = 3600
SPOOL = 1 << 20
TIMEOUT = timedelta(seconds=30)
BAD_PARTS = frozenset({"EntityTooSmall", "InvalidPart", "InvalidPartOrder", "InvalidRequest"})
LOCATION = re.compile(r"s3://(?P<bucket>[^/]+)(?:/(?P<prefix>.*))?")


class S3ArtifactStore(ObjectArtifactStore):
    """An `ArtifactStore` in a bucket."""

    def __init__(self, url: str, settings: S3Settings) -> None:
        """Open `s3://bucket/prefix`; the bucket must be there."""
        match = LOCATION.fullmatch(url)
        if match is None:
            raise ValueError(f"not s3://bucket/prefix: {url}")
        bucket, prefix = match["bucket"], (match["prefix"] or "").strip("/")
        super().__init__(_open(bucket, prefix, settings))
        self._bucket, self._prefix = bucket, prefix
        self._client = _client(settings, settings.endpoint)
        self._signer = _client(settings, settings.public_endpoint or settings.endpoint)
        self._parts = S3Parts(bucket, prefix, self._client, self._signer)

    @property
    def parts(self) -> "S3Parts":
        """Where objects grow that arrive in parts."""
        return self._parts

    def download_url(self, key: str, *, filename: str, media_type: str) -> str:
        """Return a URL that opens this object to anyone for ten minutes."""
        name = quote(filename, safe="")
        parameters = {
            "Bucket": self._bucket,
            "Key": _full(self._prefix, key),
            "ResponseContentType": media_type,
            "ResponseContentDisposition": f"attachment; filename*=UTF-8''{name}",
        }
        url = self._signer.generate_presigned_url("get_object", parameters, ExpiresIn=URL_S)
        return str(url)


class S3Parts:
    """A `PartStore` over S3's own multipart uploads; handles are their upload ids."""

    def __init__(self, bucket: str, prefix: str, client: Any, signer: Any) -> None:
        """Share the clients of the store."""
        self._bucket, self._prefix = bucket, prefix
        self._client, self._signer = client, signer

    def begin(self, key: str) -> str:
        """Return a handle for an object that will appear under `key`."""
        with reachable():
            began = self._client.create_multipart_upload(**self._object(key))
        return str(began["UploadId"])

    @contextmanager
    def writer(self, key: str, handle: str, number: int, offset: int) -> Iterator["_SpoolWriter"]:
        """Open a part, which waits on the gateway's disk until it is committed."""
        with tempfile.SpooledTemporaryFile(max_size=SPOOL) as spool:
            upload = self._upload(key, handle)
            yield _SpoolWriter(self._client, {**upload, "PartNumber": number}, spool)

    def held(self, key: str, handle: str) -> Sequence[HeldPart]:
        """Return all parts that S3 has, however they came."""
        pages = self._client.get_paginator("list_parts").paginate(**self._upload(key, handle))
        try:
            with reachable():
                found = [part for page in pages for part in page.get("Parts", [])]
        except NotFound:
            return ()
        return [HeldPart(part["PartNumber"], part["Size"], part["ETag"]) for part in found]

    def part_url(self, key: str, handle: str, number: int, bytes: int) -> str:
        """Return a URL that takes this part, of exactly this length, by PUT for an hour."""
        part = {**self._upload(key, handle), "PartNumber": number, "ContentLength": bytes}
        return str(self._signer.generate_presigned_url("upload_part", part, ExpiresIn=PART_URL_S))

    def assemble(self, key: str, handle: str, parts: Sequence[tuple[int, HeldPart]]) -> None:
        """Make parts the object `key`; a second call finds the object and does nothing."""
        named = [{"PartNumber": part.number, "ETag": part.tag} for _, part in parts]
        try:
            with reachable():
                self._client.complete_multipart_upload(
                    **self._upload(key, handle), MultipartUpload={"Parts": named}
                )
        except NotFound:
            self._require(key)
        except ClientError as error:
            if error.response["Error"].get("Code") not in BAD_PARTS:
                raise
            raise UploadIncomplete(key) from error

    def abort(self, key: str, handle: str) -> None:
        """Forget all parts."""
        try:
            with reachable():
                self._client.abort_multipart_upload(**self._upload(key, handle))
        except NotFound:
            return

    def _require(self, key: str) -> None:
        try:
            with reachable():
                self._client.head_object(**self._object(key))
        except NotFound as error:
            raise UploadIncomplete(key) from error

    def _object(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": _full(self._prefix, key)}

    def _upload(self, key: str, handle: str) -> dict[str, Any]:
        return {**self._object(key), "UploadId": handle}


class _SpoolWriter:
    """Collects a part and sends it whole, since its length and digest come first on the wire."""

    def __init__(self, client: Any, part: dict[str, Any], spool: Any) -> None:
        self._client, self._part, self._spool = client, part, spool

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._spool.write(chunk)

    def commit(self) -> str:
        """Send the part and return its ETag."""
        self._spool.seek(0)
        with reachable():
            return str(self._client.upload_part(**self._part, Body=self._spool)["ETag"])


@contextmanager
def reachable() -> Iterator[None]:
    """Raise `StoreAway` when S3 does not answer, and `NotFound` when it has no such thing."""
    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 404:
            raise NotFound() from error
        if status >= 500:
            raise StoreAway() from error
        raise
    except BotoCoreError as error:
        raise StoreAway() from error


def _full(prefix: str, key: str) -> str:
    return f"{prefix}/{checked(key)}" if prefix else checked(key)


def _open(bucket: str, prefix: str, settings: S3Settings) -> S3Store:
    options: dict[str, Any] = {
        "region": settings.region,
        "virtual_hosted_style_request": settings.endpoint is None,
    }
    if settings.endpoint is not None:
        options["endpoint"] = settings.endpoint
    if settings.access_key_id is not None:
        options["access_key_id"] = settings.access_key_id
        options["secret_access_key"] = settings.secret
    insecure = (settings.endpoint or "").startswith("http://")
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={"allow_http": insecure, "connect_timeout": "5s", "timeout": "60s"},
        retry_config={"max_retries": 5, "retry_timeout": TIMEOUT},
        **options,
    )


def _client(settings: S3Settings, endpoint: str | None) -> Any:
    style = "path" if endpoint else "virtual"
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": style},
            connect_timeout=5,
            read_timeout=600,
            retries={"mode": "standard", "max_attempts": 3},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
