"""API keys and their store."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ApiKey:
    """A key's owner; the secret itself is not kept, only its SHA-256.

    A key with `expires_at` ends then, of itself; one with `revoked_at` has ended.
    """

    id: str
    tenant: str
    scopes: tuple[str, ...]
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True)
class IssuedKey:
    """A new key; `token` is its full text, which cannot be had again."""

    key: ApiKey
    token: str


class KeyStore(Protocol):
    """API keys: `disp_<id>_<secret>`."""

    def issue_key(self, tenant: str, scopes: Sequence[str] = ("read", "submit")) -> str:
        """Create a key and return its full text, which cannot be had again."""
        ...

    def create_key(self, tenant: str, scopes: Sequence[str]) -> IssuedKey:
        """Like `issue_key`, with the key's facts."""
        ...

    def list_keys(self, tenant: str | None = None) -> Sequence[ApiKey]:
        """Return a tenant's keys, or everybody's, oldest first, those that ended too."""
        ...

    def rotate_key(self, key_id: str, *, grace_s: float, tenant: str | None = None) -> IssuedKey:
        """Issue a key with the same owner and scopes; the old one ends `grace_s` from now.

        Raises `NotFound` for a key that has ended, or is not of the `tenant` given.
        """
        ...

    def authenticate(self, token: str) -> ApiKey | None:
        """Return the key's owner; None if it is malformed, unknown or revoked."""
        ...

    def revoke_key(self, key_id: str, tenant: str | None = None) -> None:
        """Make a key worthless from now on; raise `NotFound` if it is not of the tenant given."""
        ...
