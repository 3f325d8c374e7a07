"""Following a job to its end."""

from client.progress import View
from client.sdk import Client
from schemas.jobs import Job, JobStatus


class Follower:
    """Shows the stages of a job as they move, and every event that is more than news."""

    def __init__(self, client: Client, job_id: str, view: View) -> None:
        self._client = client
        self._job_id = job_id
        self._view = view
        self._after: str | None = None
        self._said_queued = False

    def see(self, job: Job) -> None:
        """Take in the job's present state."""
        if job.status is JobStatus.QUEUED and not self._said_queued:
            self._said_queued = True
            self._view.say("queued: waiting for the runner")
        for step in job.steps:
            self._view.show(step)
        self._show_events()

    def _show_events(self) -> None:
        while True:
            page = self._client.event_page(self._job_id, after=self._after)
            self._after = page.last_id or self._after
            for event in page.data:
                if event.level != "info":
                    self._view.say(f"{event.level}: {event.message}")
            if not page.has_more:
                return


def watch_job(client: Client, job_id: str, view: View) -> Job:
    """Return the job when it has ended; its progress goes to `view`, which the caller opens."""
    return client.wait(job_id, seen=Follower(client, job_id, view).see)
