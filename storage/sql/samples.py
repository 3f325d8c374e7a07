"""Samples of ended jobs in SQL: what a list shows, and where the whole lies."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select, tuple_

from storage.errors import NotFound
from storage.interfaces import Claim, SampleEntry, Shown
from storage.sql.backend import SqlBackend
from storage.sql.jobs import find_job
from storage.sql.leases import owned
from storage.sql.tables import SampleRow

UNSCORED = -1e9
"""Stands for no score: it sorts last."""
AT_ONCE = 1000


class SqlSamples(SqlBackend):
    """A `SampleStore`."""

    def index_samples(self, claim: Claim, entries: Iterable[SampleEntry]) -> None:
        """Write what lists show, in small transactions, in place of an earlier attempt's."""
        with self._write() as session:
            owned(session, claim)
            session.execute(delete(SampleRow).where(SampleRow.job_id == claim.job_id))
        remaining = iter(entries)
        while batch := list(itertools.islice(remaining, AT_ONCE)):
            with self._write() as session:
                owned(session, claim)
                session.execute(insert(SampleRow), [_columns(claim.job_id, e) for e in batch])

    def list_sample_entries(
        self,
        tenant: str,
        job_id: str,
        *,
        shown: Shown = Shown.ALL,
        after: int | None = None,
        limit: int = 50,
    ) -> tuple[Sequence[SampleEntry], bool]:
        """Return up to `limit` entries, the most suspicious first, and whether there are more."""
        key = tuple_(SampleRow.score, SampleRow.back)
        query = select(SampleRow).where(SampleRow.job_id == job_id, *_filter(shown))
        with self._read() as session:
            find_job(session, tenant, job_id)
            if after is not None:
                last = session.get(SampleRow, (job_id, after))
                if last is None:
                    raise NotFound(str(after))
                query = query.where(key < tuple_(last.score, last.back))
            query = query.order_by(SampleRow.score.desc(), SampleRow.back.desc())
            rows = session.scalars(query.limit(limit + 1)).all()
        return [_entry(row) for row in rows[:limit]], len(rows) > limit

    def sample_neighbours(
        self, tenant: str, job_id: str, position: int
    ) -> tuple[int | None, int | None]:
        """Return the positions before and after one, in the order of the whole list."""
        key = tuple_(SampleRow.score, SampleRow.back)
        query = select(SampleRow.position).where(SampleRow.job_id == job_id)
        with self._read() as session:
            find_job(session, tenant, job_id)
            here = session.get(SampleRow, (job_id, position))
            if here is None:
                raise NotFound(str(position))
            at = tuple_(here.score, here.back)
            rising = query.where(key > at).order_by(SampleRow.score, SampleRow.back)
            falling = query.where(key < at).order_by(SampleRow.score.desc(), SampleRow.back.desc())
            before = session.scalars(rising.limit(1)).one_or_none()
            return before, session.scalars(falling.limit(1)).one_or_none()

    def get_sample_entry(self, tenant: str, job_id: str, position: int) -> SampleEntry:
        """Return the entry at a position of the job's file, or raise `NotFound`."""
        with self._read() as session:
            find_job(session, tenant, job_id)
            row = session.get(SampleRow, (job_id, position))
        if row is None:
            raise NotFound(str(position))
        return _entry(row)


def _filter(shown: Shown) -> list[ColumnElement[bool]]:
    if shown is Shown.ALL:
        return []
    if shown is Shown.FLAGGED:
        return [SampleRow.flagged.is_(True)]
    if shown in (Shown.CHANGED, Shown.UNCHANGED):
        return [SampleRow.verdict == shown.value]
    return [SampleRow.status == shown.value]


def _columns(job_id: str, entry: SampleEntry) -> dict[str, Any]:
    score = UNSCORED if entry.score is None else entry.score
    return {**vars(entry), "job_id": job_id, "back": -entry.position, "score": score}


def _entry(row: SampleRow) -> SampleEntry:
    found = {name: getattr(row, name) for name in SampleEntry.__dataclass_fields__}
    return SampleEntry(**found | {"score": None if row.score == UNSCORED else row.score})
