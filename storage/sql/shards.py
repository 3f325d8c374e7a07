"""Shards in SQL: shares of a running job that workers lease one by one."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from schemas.jobs import WORKING, JobStatus
from schemas.requests import DefenseJobCreate
from storage.errors import LeaseLost
from storage.interfaces import (
    Claim,
    Directive,
    FileBlob,
    JobInputs,
    Shard,
    ShardClaim,
    Turn,
)
from storage.sql.backend import SqlBackend
from storage.sql.engine import database_now
from storage.sql.files import blob_of, find_file
from storage.sql.models import record_of
from storage.sql.tables import JobRow, ModelRow, ShardRow


class ShardStatus(StrEnum):
    """Free, taken for a while, or stored."""

    OPEN = "open"
    LEASED = "leased"
    DONE = "done"


class SqlShards(SqlBackend):
    """A `ShardStore`."""

    def open_shards(self, claim: Claim, shards: Sequence[Shard]) -> None:
        """Offer shards, those apart that are there already; raises `LeaseLost`."""
        with self._write() as session:
            _require_attempt(session, claim)
            for shard in shards:
                if session.get(ShardRow, _key(claim.job_id, shard)) is None:
                    session.add(
                        ShardRow(job_id=claim.job_id, status=ShardStatus.OPEN, **vars(shard))
                    )

    def find_help_wanted(self, owner: str, job_id: str | None = None) -> ShardClaim | None:
        """Return the oldest running job (or `job_id`, if it is one) with a shard to be taken."""
        with self._read() as session:
            free = _free(None, database_now(session))
            query = select(JobRow.id, JobRow.tenant).join(ShardRow, ShardRow.job_id == JobRow.id)
            to_do = ShardRow.last > ShardRow.first  # not a stage that helpers only read
            query = query.where(JobRow.status == JobStatus.RUNNING.value, free, to_do)
            if job_id is not None:
                query = query.where(JobRow.id == job_id)
            found = session.execute(query.order_by(JobRow.id).limit(1)).first()
            return None if found is None else ShardClaim(found.id, found.tenant, owner)

    def shard_inputs(self, claim: ShardClaim) -> JobInputs:
        """Return what the job works on, or raise `LeaseLost` when it is at work no more."""
        with self._read() as session:
            job = session.get(JobRow, claim.job_id)
            if job is None or job.status not in WORKING:
                raise LeaseLost(claim.job_id, 0)
            return inputs_of(session, job)

    def take_shard(
        self, claim: ShardClaim, folder: str, *, lease_s: float, attempt: int | None = None
    ) -> Turn:
        """Lease the first shard of a folder that is open, or whose lease has ended."""
        with self._write() as session:
            now = database_now(session)
            here = and_(ShardRow.job_id == claim.job_id, ShardRow.folder == folder)
            query = select(ShardRow).where(here, _free(attempt, now))
            query = query.order_by(ShardRow.first).limit(1).with_for_update(skip_locked=True)
            row = session.scalars(query).first()
            if row is not None:
                row.status, row.owner, row.attempt = ShardStatus.LEASED, claim.owner, attempt
                row.lease_until = now + lease_s
            done, unfinished = _tally(session, here)
            return Turn(None if row is None else _shard(row), unfinished, done)

    def finish_shard(self, claim: ShardClaim, shard: Shard) -> None:
        """Say that the shard's files are stored; harmless when it is done, or gone."""
        with self._write() as session:
            row = session.get(ShardRow, _key(claim.job_id, shard), with_for_update=True)
            if row is not None:
                row.status, row.owner, row.attempt = ShardStatus.DONE, None, None
                row.lease_until = None

    def finished_shards(self, claim: ShardClaim) -> Sequence[Shard]:
        """Return all shards of the job whose files are stored."""
        with self._read() as session:
            done = ShardRow.status == ShardStatus.DONE.value
            query = select(ShardRow).where(ShardRow.job_id == claim.job_id, done)
            return [_shard(row) for row in session.scalars(query.order_by(ShardRow.first))]

    def renew_shards(self, claim: ShardClaim, *, lease_s: float) -> Directive:
        """Extend the helper's leases; `LOST` once the job is at work no more."""
        with self._write() as session:
            job = session.get(JobRow, claim.job_id)
            if job is None or job.status not in WORKING | {JobStatus.QUEUED}:
                return Directive.LOST
            extend(session, claim.job_id, claim.owner, database_now(session) + lease_s)
            return Directive.CONTINUE

    def release_shards(self, claim: ShardClaim) -> None:
        """Let others take at once what this owner holds."""
        with self._write() as session:
            session.execute(
                _held(claim.job_id, claim.owner).values(
                    status=ShardStatus.OPEN.value, owner=None, attempt=None, lease_until=None
                )
            )


def extend(session: Session, job_id: str, owner: str, lease_until: float) -> None:
    """Let an owner's shards be its own until then."""
    session.execute(_held(job_id, owner).values(lease_until=lease_until))


def inputs_of(session: Session, job: JobRow) -> JobInputs:
    """Return a job's request with its model and files."""
    return JobInputs(
        request=DefenseJobCreate.model_validate(job.request),
        model=record_of(session.get_one(ModelRow, job.model)),
        training=blob_of(find_file(session, job.tenant, job.training_file)),
        triggered=_optional_blob(session, job.tenant, job.triggered_file),
        clean=_optional_blob(session, job.tenant, job.clean_file),
        checkpoint=_optional_blob(session, job.tenant, job.checkpoint_file),
    )


def _optional_blob(session: Session, tenant: str, file_id: str | None) -> FileBlob | None:
    return None if file_id is None else blob_of(find_file(session, tenant, file_id))


def _require_attempt(session: Session, claim: Claim) -> None:
    query = select(JobRow.id).where(
        JobRow.id == claim.job_id,
        JobRow.attempt == claim.attempt,
        JobRow.lease_owner == claim.owner,
    )
    if session.scalars(query.with_for_update()).one_or_none() is None:
        raise LeaseLost(claim.job_id, claim.attempt)


def _free(attempt: int | None, now: float) -> ColumnElement[bool]:
    abandoned: ColumnElement[bool] = ShardRow.lease_until < now
    if attempt is not None:
        abandoned = or_(abandoned, ShardRow.attempt < attempt)
    leased = and_(ShardRow.status == ShardStatus.LEASED.value, abandoned)
    return or_(ShardRow.status == ShardStatus.OPEN.value, leased)


def _held(job_id: str, owner: str) -> Any:
    leased = ShardRow.status == ShardStatus.LEASED.value
    return update(ShardRow).where(ShardRow.job_id == job_id, ShardRow.owner == owner, leased)


def _tally(session: Session, here: ColumnElement[bool]) -> tuple[int, int]:
    """Samples that are stored, and shards that are not."""
    session.flush()
    done = here & (ShardRow.status == ShardStatus.DONE.value)
    samples = session.scalar(select(func.sum(ShardRow.last - ShardRow.first)).where(done))
    open_ = here & (ShardRow.status != ShardStatus.DONE.value)
    return int(samples or 0), int(session.scalar(select(func.count()).where(open_)) or 0)


def _key(job_id: str, shard: Shard) -> tuple[str, str, int]:
    return (job_id, shard.folder, shard.first)


def _shard(row: ShardRow) -> Shard:
    return Shard(row.folder, row.first, row.last)
