"""API keys in SQL."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from storage.errors import NotFound
from storage.ids import new_id
from storage.interfaces import ApiKey, IssuedKey
from storage.sql.backend import SqlBackend
from storage.sql.engine import Clock, database_now
from storage.sql.tables import KeyRow

TOKEN = re.compile(r"disp_(?P<id>[0-9a-f]{32})_(?P<secret>[A-Za-z0-9_-]{43})")


class SqlKeys(SqlBackend):
    """A `KeyStore`."""

    def issue_key(self, tenant: str, scopes: Sequence[str] = ("read", "submit")) -> str:
        """Create a key and return its full text, which cannot be had again."""
        return self.create_key(tenant, scopes).token

    def create_key(self, tenant: str, scopes: Sequence[str]) -> IssuedKey:
        """Like `issue_key`, with the key's facts."""
        with self._write() as session:
            return _issue(session, tenant, scopes, database_now(session))

    def authenticate(self, token: str) -> ApiKey | None:
        """Return the key's owner; None if it is malformed, unknown, revoked or at its end."""
        if TOKEN.fullmatch(token) is None:
            return None
        query = select(KeyRow).where(KeyRow.id == _key_id(token), _alive())
        with self._read() as session:
            row = session.scalars(query).one_or_none()
        known = hmac.compare_digest(row.sha256 if row else "", _digest(token))
        return _key(row) if row is not None and known else None

    def list_keys(self, tenant: str | None = None) -> Sequence[ApiKey]:
        """Return a tenant's keys, or everybody's, oldest first, those that ended too."""
        query = select(KeyRow).order_by(KeyRow.id)
        if tenant is not None:
            query = query.where(KeyRow.tenant == tenant)
        with self._read() as session:
            return [_key(row) for row in session.scalars(query)]

    def revoke_key(self, key_id: str, tenant: str | None = None) -> None:
        """Make a key worthless from now on; raise `NotFound` if it is not of the tenant given."""
        with self._write() as session:
            row = _find(session, key_id, tenant)
            row.revoked_at = row.revoked_at or database_now(session)

    def rotate_key(self, key_id: str, *, grace_s: float, tenant: str | None = None) -> IssuedKey:
        """Issue a key with the same owner and scopes; the old one ends `grace_s` from now."""
        with self._write() as session:
            now = database_now(session)
            row = _find(session, key_id, tenant)
            if row.revoked_at is not None or (row.expires_at or now + 1) <= now:
                raise NotFound(key_id)
            row.expires_at = min(row.expires_at or now + grace_s, now + grace_s)
            return _issue(session, row.tenant, row.scopes, now)


def _issue(session: Session, tenant: str, scopes: Sequence[str], now: float) -> IssuedKey:
    token = f"{new_id('disp')}_{secrets.token_urlsafe(32)}"
    row = KeyRow(
        id=_key_id(token),
        tenant=tenant,
        sha256=_digest(token),
        scopes=list(scopes),
        created_at=now,
    )
    session.add(row)
    session.flush()
    return IssuedKey(_key(row), token)


def _find(session: Session, key_id: str, tenant: str | None) -> KeyRow:
    row = session.scalars(select(KeyRow).where(KeyRow.id == key_id).with_for_update()).one_or_none()
    if row is None or tenant not in (None, row.tenant):
        raise NotFound(key_id)
    return row


def _alive() -> ColumnElement[bool]:
    return KeyRow.revoked_at.is_(None) & or_(
        KeyRow.expires_at.is_(None), KeyRow.expires_at > Clock()
    )


def _key(row: KeyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        tenant=row.tenant,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def _key_id(token: str) -> str:
    return token.split("_")[1]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
