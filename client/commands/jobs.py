"""`disp status`, `watch`, `cancel` and the like: what one does with a job that is there."""

from pathlib import Path
from typing import Annotated

import typer

from client.commands.connection import LONG_PATIENCE_S, open_client
from client.commands.options import ApiKey, Json, Url
from client.commands.output import print_json, print_paths
from client.errors import JobFailed
from client.sdk import Client
from schemas.jobs import Job, JobStatus


def status(
    job_id: Annotated[str | None, typer.Argument(help="Without it, the newest jobs.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many jobs to list.")] = 20,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Show a job, or the newest ones."""
    from client.render import job_table, jobs_table, open_stdout

    with open_client(url, api_key) as client:
        if job_id is None:
            jobs = list(client.jobs(limit=limit).data)
            if as_json:
                print_json([job.model_dump(mode="json") for job in jobs])
            else:
                open_stdout().print(jobs_table(jobs))
            return
        job = client.job(job_id)
    if as_json:
        print_json(job)
    else:
        open_stdout().print(job_table(job))
        if job.error is not None:
            print(f"{job.error.code}: {job.error.message}")
            for fault in job.error.faults:
                print(f"  {fault.where}: {fault.reason}")


def watch(
    job_id: Annotated[str, typer.Argument()],
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Follow a job to its end."""
    with open_client(url, api_key, LONG_PATIENCE_S) as client:
        end_with(watch_to_end(client, job_id), as_json)


def cancel(
    job_id: Annotated[str, typer.Argument()], url: Url = None, api_key: ApiKey = None
) -> None:
    """Ask a job to stop."""
    with open_client(url, api_key) as client:
        print(client.cancel(job_id).status.value)


def pause(
    job_id: Annotated[str, typer.Argument()], url: Url = None, api_key: ApiKey = None
) -> None:
    """Put a job aside; one at work saves what it has done first."""
    with open_client(url, api_key) as client:
        print(client.pause(job_id).status.value)


def resume(
    job_id: Annotated[str, typer.Argument()], url: Url = None, api_key: ApiKey = None
) -> None:
    """Let a paused job go on."""
    with open_client(url, api_key) as client:
        print(client.resume(job_id).status.value)


def retry(
    job_id: Annotated[str, typer.Argument()],
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Create a job like one that has failed or was cancelled."""
    with open_client(url, api_key) as client:
        end_with(client.retry(job_id), as_json)


def delete(
    job_id: Annotated[str, typer.Argument()], url: Url = None, api_key: ApiKey = None
) -> None:
    """Delete a job that has ended, with everything that it published."""
    with open_client(url, api_key) as client:
        print(f"{client.delete(job_id).id} deleted")


def fetch(
    job_id: Annotated[str, typer.Argument()],
    out: Annotated[Path | None, typer.Option(help="Where they go [artifacts/JOB].")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Download a job's artifacts, checked against the manifest; a second call resumes."""
    with open_client(url, api_key, LONG_PATIENCE_S) as client:
        paths = client.fetch(job_id, out or Path("artifacts") / job_id)
    if as_json:
        print_json([str(path) for path in paths])
    else:
        print_paths(paths)


def watch_to_end(client: Client, job_id: str) -> Job:
    """Follow a job with its progress on stderr."""
    from client.progress import open_view
    from client.watch import watch_job

    with open_view() as view:
        return watch_job(client, job_id, view)


def end_with(job: Job, as_json: bool) -> None:
    """Print the job; a failed or cancelled one ends the command with status 1."""
    if as_json:
        print_json(job)
    else:
        print(f"{job.id} {job.status.value}")
    if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise JobFailed(job)
