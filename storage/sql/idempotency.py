"""Idempotency keys: one transaction holds the key, what it made and the answer to it.

A creating call does its work between `earlier_answer` and `keep_answer`, in one transaction:

    earlier = earlier_answer(session, tenant, idempotency, Thing, now)
    if earlier is not None:
        return earlier, True
    thing = ...
    keep_answer(session, tenant, idempotency, thing)

If the transaction is rolled back, the key is as unused as before.
"""

import hashlib
from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy import BigInteger, cast, delete, func, select
from sqlalchemy.orm import Session

from storage.errors import IdempotencyInFlight, IdempotencyKeyReused
from storage.interfaces import Idempotency
from storage.sql.tables import IdempotencyRow

KEPT_S = 24 * 3600.0
Answer = TypeVar("Answer", bound=BaseModel)


def earlier_answer(
    session: Session, tenant: str, idempotency: Idempotency | None, shape: type[Answer], now: float
) -> Answer | None:
    """Return what the key was answered with in the last day; None if it is new, or there is none.

    Raises `IdempotencyKeyReused` when that was another request, and `IdempotencyInFlight` while a
    rival's transaction holds the key.
    """
    if idempotency is None:
        return None
    _hold(session, tenant, idempotency.key)
    row = session.get(IdempotencyRow, (tenant, idempotency.key))
    if row is None or row.created_at < now - KEPT_S:
        _reserve(session, row, tenant, idempotency, now)
        return None
    if row.body_sha256 != idempotency.body_sha256:
        raise IdempotencyKeyReused(idempotency.key)
    return shape.model_validate(row.response)


def keep_answer(
    session: Session, tenant: str, idempotency: Idempotency | None, answer: BaseModel
) -> None:
    """Keep the answer for whoever sends the key again."""
    if idempotency is not None:
        row = session.get_one(IdempotencyRow, (tenant, idempotency.key))
        row.response = answer.model_dump(mode="json")


def forget_expired(session: Session, now: float) -> None:
    """Remove the keys of more than a day ago."""
    session.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < now - KEPT_S))


def advisory_number(*parts: str) -> int:
    """Return a name's number for PostgreSQL's advisory locks, which know no names."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


def _hold(session: Session, tenant: str, key: str) -> None:
    """Take the key for this transaction; on SQLite only one transaction writes at a time anyway."""
    if session.get_bind().dialect.name == "postgresql":
        number = cast(advisory_number("idempotency", tenant, key), BigInteger)
        if not session.scalar(select(func.pg_try_advisory_xact_lock(number))):
            raise IdempotencyInFlight(key)


def _reserve(
    session: Session, row: IdempotencyRow | None, tenant: str, idempotency: Idempotency, now: float
) -> None:
    if row is None:
        row = IdempotencyRow(tenant=tenant, key=idempotency.key)
        session.add(row)
    row.body_sha256, row.response, row.created_at = idempotency.body_sha256, {}, now
    session.flush()
