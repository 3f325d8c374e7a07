"""What a store is told of a call that may come twice."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Idempotency:
    """An Idempotency-Key header and the SHA-256 of the body that came with it."""

    key: str
    body_sha256: str
