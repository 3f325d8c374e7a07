"""The SQL job store, put together."""

from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError

from storage.errors import MigrationMissing
from storage.sql.control import SqlControl
from storage.sql.engine import open_engine
from storage.sql.files import SqlFiles
from storage.sql.jobs import SqlJobs
from storage.sql.keys import SqlKeys
from storage.sql.leases import SqlLeases
from storage.sql.models import SqlModels
from storage.sql.readings import SqlReadings
from storage.sql.samples import SqlSamples
from storage.sql.shards import SqlShards
from storage.sql.statistics import SqlStatistics
from storage.sql.uploads import SqlUploads
from storage.sql.webhooks import SqlWebhooks

REVISION = "0010"


class SqlJobStore(
    SqlKeys,
    SqlFiles,
    SqlReadings,
    SqlUploads,
    SqlModels,
    SqlJobs,
    SqlControl,
    SqlLeases,
    SqlShards,
    SqlSamples,
    SqlWebhooks,
    SqlStatistics,
):
    """A `JobStore` in SQLite or PostgreSQL."""

    def __init__(self, url: str) -> None:
        """Open a migrated database, or raise `MigrationMissing`."""
        super().__init__(open_engine(url))
        try:
            self._require_revision()
        except BaseException:
            self.close()
            raise

    def ping(self) -> None:
        """Write and roll back; raise if the database cannot be written."""
        with self._write() as session:
            session.execute(text("DELETE FROM api_keys WHERE id = ''"))
            session.rollback()

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()

    def _require_revision(self) -> None:
        found = self._revision()
        if found != REVISION:
            raise MigrationMissing(found)

    def _revision(self) -> str | None:
        try:
            with self._read() as session:
                if not inspect(session.connection()).has_table("alembic_version"):
                    return None
                found = session.scalar(text("SELECT version_num FROM alembic_version"))
                return None if found is None else str(found)
        except DatabaseError as error:
            raise MigrationMissing() from error
