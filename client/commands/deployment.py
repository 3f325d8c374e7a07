"""`disp serve`, `prepare`, `worker`, `reconcile`, `doctor`: the service's own side."""

import os
from pathlib import Path
from typing import Annotated

import typer

from client.commands.exits import FAILED, USAGE, leave
from client.commands.options import Json
from client.commands.output import announce, print_json, print_result
from client.config import DATA_FOLDER
from schemas.tasks import QUEUE

SCOPES = ("read", "submit")


def serve(
    data: Annotated[Path, typer.Option(help="Where everything is kept.")] = DATA_FOLDER,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
) -> None:
    """Run the service: gateway and runner, on SQLite and a local folder."""
    from client.serve import serve as run

    run(data, host, port, announce)


def prepare(
    database_url: Annotated[str, typer.Option(envvar="DISP_DATABASE_URL", show_envvar=True)],
    tenant: Annotated[str, typer.Option(help="Whose key it is.")] = "default",
    key: Annotated[bool, typer.Option(help="Issue an API key and print it.")] = True,
    bucket: Annotated[
        bool, typer.Option("--bucket", help="Create the bucket of DISP_ARTIFACTS_URL if missing.")
    ] = False,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="What the key may do: read, submit, metrics; repeatable."),
    ] = None,
) -> None:
    """Migrate a database, register the built-in models, issue an API key."""
    from sqlalchemy.exc import SQLAlchemyError

    from client.prepare import issue_key, make_bucket, prepare_database

    if bucket:
        make_bucket(os.environ.get("DISP_ARTIFACTS_URL", ""))
    try:
        if key:
            print(issue_key(database_url, tenant, scope or SCOPES))
        else:
            prepare_database(database_url).close()
    except SQLAlchemyError as error:
        leave(f"error: this database cannot be prepared: {error}", USAGE)


def worker(
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", help="disp.gpu (jobs, default), disp.cpu, disp.io; repeatable."),
    ] = None,
    once: Annotated[bool, typer.Option(help="One attempt at one waiting job, then leave.")] = False,
) -> None:
    """Work on jobs or uploads: as a Celery node where there is a broker, by polling otherwise."""
    from client.worker import run_for_ever, run_once

    if once:
        raise SystemExit(run_once())
    run_for_ever(queue or [QUEUE])


def reconcile(as_json: Json = False) -> None:
    """Repair once what deaths have left behind, as this environment's gateway does all the time."""
    from dataclasses import asdict

    from client.reconcile import reconcile_once

    print_result(asdict(reconcile_once()), as_json)


def doctor(as_json: Json = False) -> None:
    """Check this deployment, as this environment describes it, and say what to fix."""
    from client.doctor import Deployment, examine, healthy

    findings = []
    for finding in examine(Deployment.of(os.environ)):
        findings.append(finding)
        if not as_json:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            print(f"{finding.verdict.value:8} {finding.check}: {finding.found}{remedy}")
    if as_json:
        print_json([finding.as_json() for finding in findings])
    if not healthy(findings):
        raise SystemExit(FAILED)
