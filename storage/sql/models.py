"""The allow-list of models in SQL."""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import select

from schemas.models import Model, ModelKind
from storage.errors import NotFound
from storage.interfaces import ModelRecord
from storage.sql.backend import SqlBackend
from storage.sql.engine import database_now
from storage.sql.tables import ModelRow


class SqlModels(SqlBackend):
    """A `ModelStore`."""

    def register_model(self, model: ModelRecord) -> None:
        """Add a model, or replace the one with the same id."""
        with self._write() as session:
            known = session.get(ModelRow, model.id)
            row = ModelRow(
                id=model.id,
                family=model.family,
                revision=model.revision,
                path=model.path,
                defaults=dict(model.defaults),
                kind=model.kind,
                created_at=known.created_at if known else database_now(session),
            )
            session.merge(row)

    def get_model(self, model_id: str) -> Model:
        """Return a model or raise `NotFound`."""
        with self._read() as session:
            row = session.get(ModelRow, model_id)
        if row is None:
            raise NotFound(model_id)
        return _model(row)

    def list_models(self) -> Sequence[Model]:
        """Return all models by id."""
        with self._read() as session:
            return [_model(row) for row in session.scalars(select(ModelRow).order_by(ModelRow.id))]

    def list_model_records(self) -> Sequence[ModelRecord]:
        """Return all models by id, with the folders that workers read."""
        with self._read() as session:
            rows = session.scalars(select(ModelRow).order_by(ModelRow.id))
            return [record_of(row) for row in rows]


def record_of(row: ModelRow) -> ModelRecord:
    """Return what a worker needs of a row."""
    return ModelRecord(
        id=row.id,
        family=row.family,
        revision=row.revision,
        path=row.path,
        defaults=dict(row.defaults),
        kind=cast(ModelKind, row.kind),
    )


def _model(row: ModelRow) -> Model:
    return Model(
        id=row.id,
        created=int(row.created_at),
        family=row.family,
        kind=cast(ModelKind, row.kind),
        revision=row.revision,
        defaults=dict(row.defaults),
    )
