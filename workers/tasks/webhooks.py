"""The task that sends webhooks: whatever is due, until nothing is."""

from functools import lru_cache

from schemas.tasks import DELIVER
from storage.connect import open_job_store
from storage.webhooks.egress import Egress
from storage.webhooks.sender import Sender
from workers.app import app
from workers.settings import worker_settings


@app.task(name=DELIVER, ignore_result=True, acks_late=False, max_retries=0)
def deliver() -> None:
    """What Celery sees; when to try again is the outbox's business."""
    sender().send_due()


@lru_cache(maxsize=1)
def sender() -> Sender:
    """Opened in the process that uses it, never before a fork."""
    settings = worker_settings()
    egress = Egress(allow_local=settings.webhooks_allow_local)
    return Sender(open_job_store(settings.database_url), egress)
