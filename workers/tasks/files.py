"""The task behind an upload: read the file, if nobody has read it yet."""

import threading

from schemas.tasks import VALIDATE
from workers.app import app
from workers.reading import read_one
from workers.tasks.defense import workplace


@app.task(name=VALIDATE, ignore_result=True, acks_late=False, max_retries=0)
def validate(file_id: str) -> None:
    """What Celery sees; a hint that comes too late finds nothing to do."""
    read_one(workplace(), threading.Event(), file_id)
