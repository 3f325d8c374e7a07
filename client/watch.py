"""Following a job to its end."""

from client.progress import View
from client.sdk import Client
from schemas.jobs import Event, Job, JobStatus

WAITING = {
    JobStatus.QUEUED: "queued: waiting for the runner",
    JobStatus.PAUSED: "paused: waiting to be resumed",
}


class Follower:
    """Shows the stages of a job as they move, and every event that is more than news."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._waiting: JobStatus | None = None

    def see(self, item: Event | Job) -> None:
        """Take in what has happened, or the job's present state."""
        if isinstance(item, Job):
            self._see_job(item)
        elif item.level != "info":
            self._view.say(f"{item.level}: {item.message}")

    def _see_job(self, job: Job) -> None:
        waits = job.status if job.status in WAITING else None
        if waits is not None and waits is not self._waiting:
            self._view.say(WAITING[waits])
        self._waiting = waits
        for step in job.steps:
            self._view.show(step)


def watch_job(client: Client, job_id: str, view: View) -> Job:
    """Return the job when it has ended; its progress goes to `view`, which the caller opens."""
    follower = Follower(view)
    for item in client.follow(job_id):
        follower.see(item)
    return client.job(job_id)
