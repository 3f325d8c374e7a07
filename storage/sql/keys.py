"""API keys in SQL."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from storage.errors import NotFound
from storage.ids import new_id
from storage.interfaces import ApiKey
from storage.sql.backend import SqlBackend
from storage.sql.engine import database_now
from storage.sql.tables import KeyRow

TOKEN = re.compile(r"disp_(?P<id>[0-9a-f]{32})_(?P<secret>[A-Za-z0-9_-]{43})")


class SqlKeys(SqlBackend):
    """A `KeyStore`."""

    def issue_key(self, tenant: str, scopes: Sequence[str] = ("read", "submit")) -> str:
        """Create a key and return its full text, which cannot be had again."""
        token = f"{new_id('disp')}_{secrets.token_urlsafe(32)}"
        with self._write() as session:
            session.add(
                KeyRow(
                    id=_key_id(token),
                    tenant=tenant,
                    sha256=_digest(token),
                    scopes=list(scopes),
                    created_at=database_now(session),
                )
            )
        return token

    def authenticate(self, token: str) -> ApiKey | None:
        """Return the key's owner; None if it is malformed, unknown or revoked."""
        if TOKEN.fullmatch(token) is None:
            return None
        with self._read() as session:
            row = session.get(KeyRow, _key_id(token))
        known = hmac.compare_digest(row.sha256 if row else "", _digest(token))
        if row is None or not known or row.revoked_at is not None:
            return None
        return ApiKey(id=row.id, tenant=row.tenant, scopes=tuple(row.scopes))

    def revoke_key(self, key_id: str) -> None:
        """Make a key worthless from now on."""
        with self._write() as session:
            row = session.get(KeyRow, key_id)
            if row is None:
                raise NotFound(key_id)
            row.revoked_at = row.revoked_at or database_now(session)


def _key_id(token: str) -> str:
    return token.split("_")[1]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
