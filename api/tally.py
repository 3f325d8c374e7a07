"""What arrives and what is refused on the routes that take uploads, counted for operators."""

from storage.telemetry.metrics import UPLOAD_BYTES, UPLOADS_REFUSED

UPLOAD_PREFIXES = ("/v1/files", "/v1/uploads")


def count_received(path: str, size: int) -> None:
    """Count bytes of a body that arrived, if it was an upload's."""
    if path.startswith(UPLOAD_PREFIXES):
        UPLOAD_BYTES.inc(size)


def count_refusal(method: str, path: str, code: str) -> None:
    """Count a refusal, if it was of an upload."""
    if method in ("POST", "PUT") and path.startswith(UPLOAD_PREFIXES):
        UPLOADS_REFUSED.labels(code).inc()
