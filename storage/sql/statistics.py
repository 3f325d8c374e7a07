"""Numbers about all tenants' jobs, for whoever operates the service."""

from sqlalchemy import func, select

from schemas.files import FileStatus
from schemas.jobs import JobStatus
from schemas.tasks import CPU_QUEUE, IO_QUEUE, QUEUE
from schemas.webhooks import DeliveryStatus
from storage.interfaces import Statistics
from storage.sql.backend import SqlBackend
from storage.sql.engine import database_now
from storage.sql.tables import FileRow, JobRow, OutboxRow, WebhookDeliveryRow


class SqlStatistics(SqlBackend):
    """A `StatisticsStore`."""

    def now(self) -> float:
        """Return the database's clock in Unix seconds."""
        with self._read() as session:
            return database_now(session)

    def statistics(self) -> Statistics:
        """Count jobs by status, and see for how long the oldest of each queue has waited."""
        pending = WebhookDeliveryRow.status == DeliveryStatus.PENDING.value
        unread = FileRow.status == FileStatus.UPLOADED.value
        queued = JobRow.status == JobStatus.QUEUED.value
        by_status = select(JobRow.status, func.count()).group_by(JobRow.status)
        with self._read() as session:
            now = database_now(session)
            counted = {JobStatus(status): count for status, count in session.execute(by_status)}
            oldest = {
                QUEUE: session.scalar(
                    select(func.min(JobRow.created_at))
                    .join(OutboxRow, OutboxRow.job_id == JobRow.id)
                    .where(queued)
                ),
                CPU_QUEUE: session.scalar(select(func.min(FileRow.created_at)).where(unread)),
                IO_QUEUE: session.scalar(
                    select(func.min(WebhookDeliveryRow.due_at)).where(pending)
                ),
            }
        return Statistics(
            jobs={status: counted.get(status, 0) for status in JobStatus},
            oldest_age_s={
                queue: 0.0 if since is None else max(0.0, now - since)
                for queue, since in oldest.items()
            },
        )
