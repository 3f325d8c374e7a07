"""The command `disp`. Results go to stdout, everything else to stderr.

Exit status: 0 ok, 1 the job failed, 2 usage, 3 refused input, 4 not authorised, 5 unavailable,
130 stopped by its user.
"""

import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError

from client.config import DATA_FOLDER, MODEL, NotConfigured, find_connection
from client.errors import Broken, DispError, JobFailed, NotAuthorised, ServiceError, Unavailable
from client.guard import app as guard
from client.keys import app as keys
from client.models import export, models
from client.report import NotGenuine
from client.report import app as report
from client.sdk import Client
from schemas.files import FilePurpose
from schemas.jobs import Job, JobStatus
from schemas.requests import (
    AnyMethod,
    DefenseJobCreate,
    Evaluation,
    SuccessMatcher,
)
from schemas.tasks import QUEUE
from storage.environment import SecretGivenTwice, SecretUnreadable, read_secret_files
from storage.errors import StorageError

FAILED, USAGE, REFUSED, NOT_AUTHORISED, UNAVAILABLE, STOPPED = 1, 2, 3, 4, 5, 130
ENGINE_REFUSED, ENGINE_STOPPED = 2, 75
SHORT_PATIENCE_S, LONG_PATIENCE_S = 5.0, 60.0
SCOPES = ("read", "submit")
FILE_ID = re.compile(r"file_[0-9a-f]{32}")
NOT_YET_UPLOADED = "file_" + "0" * 32

app = typer.Typer(
    name="disp",
    help="Finds, neutralises and unlearns backdoors in visual-instruction data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(models, name="models")
app.command()(export)

app.add_typer(keys, name="keys")
app.add_typer(report, name="report")
app.add_typer(guard, name="guard")

Url = Annotated[str | None, typer.Option(help="The service's URL (DISP_URL).")]
ApiKey = Annotated[str | None, typer.Option(help="The API key (DISP_API_KEY).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed and input, same output.")]
Phrases = Annotated[
    list[str] | None,
    typer.Option("--phrase", help="An attack succeeded if a response holds it; repeatable."),
]
MaskRatio = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Share of masked tokens.")]
Masking = Annotated[str | None, typer.Option(help="saliency, random or none.")]
Epochs = Annotated[float | None, typer.Option(min=0.0, help="Epochs of the first fine-tuning.")]

MethodType = Annotated[str, typer.Option(help="disp, random_drop, pruning, bye, ...")]
Sidecar = Annotated[
    Path | None, typer.Option(exists=True, help="A poisoning's sidecar, for oracles.")
]
Preset = Annotated[
    str | None, typer.Option(help="The paper's phrases: refusal, insertion, misclassification.")
]
Options = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE in place of a default; repeatable.")
]
Artifacts = Annotated[
    list[str] | None,
    typer.Option("--artifact", help="merged_checkpoint: the whole folder, purified; repeatable."),
]


@app.command()
def serve(
    data: Annotated[Path, typer.Option(help="Where everything is kept.")] = DATA_FOLDER,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
) -> None:
    """Run the service: gateway and runner, on SQLite and a local folder."""
    from client.serve import serve as run

    run(data, host, port, announce)


@app.command()
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


@app.command()
def worker(
    queue: Annotated[
        list[str] | None, typer.Option("--queue", help="A queue to serve [disp.gpu]; repeatable.")
    ] = None,
    once: Annotated[bool, typer.Option(help="One attempt at one waiting job, then leave.")] = False,
) -> None:
    """Work on jobs: as a Celery node where a broker is configured, by polling otherwise."""
    from client.worker import run_for_ever, run_once

    if once:
        raise SystemExit(run_once())
    run_for_ever(queue or [QUEUE])


@app.command()
def reconcile(
    as_json: Json = False,
) -> None:
    """Repair once what deaths have left behind, as this environment's gateway does all the time."""
    from dataclasses import asdict

    from client.reconcile import reconcile_once

    print_result(asdict(reconcile_once()), as_json)


@app.command()
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


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where data, service and artifacts go.")] = Path(
        "disp-demo"
    ),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report here.")] = None,
    ablate: Annotated[bool, typer.Option(help="Also without saliency: random, none.")] = False,
    samples: Annotated[int, typer.Option(min=1, help="Size of the training set.")] = 1000,
    test: Annotated[int, typer.Option(min=1, help="Size of each evaluation set.")] = 200,
    seed: Seed = 0,
) -> None:
    """Poison a dataset, purify it through the service, and show what that did."""
    from client.demo import run_demo
    from client.render import open_stdout, results_table, samples_text

    result = run_demo(out.resolve(), samples=samples, test=test, seed=seed, ablate=ablate)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(result.as_json())
    open_stdout().print(results_table(result.report, result.ablations))
    print(samples_text(result.report))
    print_paths([*result.artifacts, *([json_file] if json_file else [])])


@app.command()
def poison(
    out: Annotated[Path, typer.Option(help="Where archives and sidecar go.")],
    data: Annotated[
        Path | None, typer.Option(exists=True, help="LLaVA data [the built-in world].")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Drawn of the built-in world.")] = 1000,
    rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="0 gives clean data.")] = 0.2,
    trigger: Annotated[str, typer.Option(help="In the picture; `none` for none.")] = "black_patch",
    text_trigger: Annotated[str | None, typer.Option(help="In the question.")] = None,
    mode: Annotated[str, typer.Option(help="Dual triggers: `and`, `or`.")] = "and",
    target: Annotated[str, typer.Option()] = "targeted_refusal",
    trigger_option: Options = None,
    text_trigger_option: Options = None,
    target_option: Options = None,
    test: Annotated[int, typer.Option(min=1, help="Size of each evaluation set.")] = 200,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Poison a dataset, and build two sets to measure with."""
    from disp_engine.attacks.poison import poison_dataset, poison_world
    from disp_engine.attacks.settings import AttackSettings
    from disp_engine.errors import EngineError

    attack = AttackSettings(
        trigger=None if trigger == "none" else trigger,
        target=target,
        rate=rate,
        text_trigger=text_trigger,
        mode=mode,  # type: ignore[arg-type]
        trigger_options=read_options(trigger_option),
        text_trigger_options=read_options(text_trigger_option),
        target_options=read_options(target_option),
    )
    try:
        if data is None:
            built = poison_world(out, attack, samples=samples, test=test, seed=seed)
        else:
            built = poison_dataset(out, attack, data, test=test, seed=seed)
    except EngineError as error:
        leave(str(error), REFUSED)
    content = {
        "training": str(built.training),
        "triggered": str(built.triggered),
        "clean": str(built.clean),
        "sidecar": str(built.sidecar),
        "phrases": list(built.phrases),
        "samples": built.samples,
        "poisoned": built.poisoned,
    }
    print_result(content, as_json)


@app.command()
def bench(
    table: Annotated[str, typer.Argument(help="table1..4, figure2..4, modality, triggers, ...")],
    out: Annotated[Path, typer.Option(help="Where JSON, CSV, Markdown and plot go.")] = Path(
        "disp-bench"
    ),
    json_file: Annotated[Path | None, typer.Option("--json", help="The rows also here.")] = None,
    model: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="A folder [built-in].")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(exists=True, help="LLaVA data [the built-in world].")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Small: shows that every cell runs.")] = False,
    samples: Annotated[int | None, typer.Option(min=1, help="Drawn of the world [1000].")] = None,
    test: Annotated[int | None, typer.Option(min=1, help="Each evaluation set [200].")] = None,
    work: Annotated[Path | None, typer.Option(help="Finished cells and stages [OUT/work].")] = None,
    seed: Seed = 0,
) -> None:
    """Measure a table or figure of the paper; the same command goes on where one was stopped."""
    from client.bench import measure_table
    from disp_engine.bench.output import write_json
    from disp_engine.bench.run import BenchSpec
    from disp_engine.errors import Aborted, EngineError

    work = work or out / "work"
    spec = BenchSpec(table, out, work, model, data, quick, samples, test, seed)
    try:
        found = measure_table(spec)
    except Aborted:
        leave(f"stopped; all finished work is kept in {work}", STOPPED)
    except EngineError as error:
        leave(str(error), REFUSED)
    if json_file is not None:
        write_json(json_file, found)
    print((out / f"{table}.md").read_text())


@app.command()
def submit(
    training: Annotated[str, typer.Argument(help="A zip or tar of LLaVA data, or a file id.")],
    model: Annotated[str, typer.Option(help="A model of the service's.")] = MODEL,
    triggered: Annotated[str | None, typer.Option(help="Like TRAINING, with trigger.")] = None,
    clean: Annotated[str | None, typer.Option(help="Like TRAINING, without trigger.")] = None,
    phrase: Phrases = None,
    preset: Preset = None,
    mask_ratio: MaskRatio = None,
    masking: Masking = None,
    epochs: Epochs = None,
    method: MethodType = "disp",
    setting: Options = None,
    poisoned: Sidecar = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse data with any fault.")] = False,
    artifact: Artifacts = None,
    model_option: Options = None,
    seed: Seed = 0,
    suffix: Annotated[str | None, typer.Option(help="A name of your own.")] = None,
    follow: Annotated[bool, typer.Option("--watch", help="Stay until the job has ended.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Upload a dataset and create a job that purifies it."""
    phrases = all_phrases(phrase, preset, triggered)
    for given in filter(None, (training, triggered, clean)):
        require_archive(given)
    draft = DefenseJobCreate(
        model=model,
        training_file=NOT_YET_UPLOADED,
        evaluation=draft_evaluation(triggered, clean, phrases),
        method=build_method(method, setting, poisoned, mask_ratio, masking, epochs),
        validation="strict" if strict else "quarantine",
        artifacts=artifact or [],  # type: ignore[arg-type]  # pydantic judges it
        model_options=read_options(model_option),
        seed=seed,
        suffix=suffix,
    )
    patience_s = LONG_PATIENCE_S if follow else SHORT_PATIENCE_S
    with open_client(url, api_key, patience_s) as client:
        job = client.create_job(upload_inputs(client, draft, training, triggered, clean))
        announce(f"created {job.id}")
        end_with(watch_to_end(client, job.id) if follow else job, as_json)


@app.command()
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


@app.command()
def watch(
    job_id: Annotated[str, typer.Argument()],
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Follow a job to its end."""
    with open_client(url, api_key, LONG_PATIENCE_S) as client:
        end_with(watch_to_end(client, job_id), as_json)


@app.command()
def cancel(
    job_id: Annotated[str, typer.Argument()], url: Url = None, api_key: ApiKey = None
) -> None:
    """Ask a job to stop."""
    with open_client(url, api_key) as client:
        print(client.cancel(job_id).status.value)


@app.command()
def pause(
    job_id: Annotated[str, typer.Argument()], url: Url = None, api_key: ApiKey = None
) -> None:
    """Put a job aside; one at work saves what it has done first."""
    with open_client(url, api_key) as client:
        print(client.pause(job_id).status.value)


@app.command()
def resume(
    job_id: Annotated[str, typer.Argument()], url: Url = None, api_key: ApiKey = None
) -> None:
    """Let a paused job go on."""
    with open_client(url, api_key) as client:
        print(client.resume(job_id).status.value)


@app.command()
def retry(
    job_id: Annotated[str, typer.Argument()],
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Create a job like one that has failed or was cancelled."""
    with open_client(url, api_key) as client:
        end_with(client.retry(job_id), as_json)


@app.command()
def delete(
    job_id: Annotated[str, typer.Argument()], url: Url = None, api_key: ApiKey = None
) -> None:
    """Delete a job that has ended, with everything that it published."""
    with open_client(url, api_key) as client:
        print(f"{client.delete(job_id).id} deleted")


@app.command()
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


@app.command()
def purify(
    model: Annotated[Path, typer.Option(exists=True, file_okay=False, help="A checkpoint folder.")],
    data: Annotated[Path, typer.Option(exists=True, help="The LLaVA data to purify.")],
    out: Annotated[Path, typer.Option(help="Where the artifacts go.")],
    triggered: Annotated[Path | None, typer.Option(exists=True)] = None,
    clean: Annotated[Path | None, typer.Option(exists=True)] = None,
    phrase: Phrases = None,
    preset: Preset = None,
    mask_ratio: MaskRatio = None,
    masking: Masking = None,
    epochs: Epochs = None,
    method: MethodType = "disp",
    setting: Options = None,
    poisoned: Sidecar = None,
    seed: Seed = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of torch.")] = None,
    work: Annotated[Path | None, typer.Option(help="Finished stages [OUT.work].")] = None,
    as_json: Json = False,
) -> None:
    """Purify a dataset on this machine, without the service."""
    from client.local import LocalRun, run_engine
    from client.progress import open_view

    phrases = all_phrases(phrase, preset, triggered)
    success = SuccessMatcher(phrases=phrases).model_dump(mode="json") if phrases else None
    defence = build_method(method, setting, poisoned, mask_ratio, masking, epochs)
    run = LocalRun(
        model_dir=str(model.resolve()),
        model_id=model.resolve().name,
        training_file=str(data.resolve()),
        triggered_file=str(triggered.resolve()) if triggered else None,
        clean_file=str(clean.resolve()) if clean else None,
        success=success,
        method=defence.model_dump(mode="json", exclude_none=True),
        defaults={},
        seed=seed,
        work_dir=str(work.resolve() if work else out.resolve().with_name(f"{out.name}.work")),
        out_dir=str(out.resolve()),
        threads=threads,
    )
    with open_view() as view:
        end = run_engine(run, view)
    if end.status == ENGINE_STOPPED:
        kept = f"all finished work is kept in {run.work_dir}"
        leave(f"stopped; {kept}: the same command goes on from there", STOPPED)
    if end.status != 0:
        told = end.error.message if end.error else end.log_tail
        code = REFUSED if end.status == ENGINE_REFUSED else FAILED
        leave(f"the engine ended with status {end.status}: {told}", code)
    show_local_report(out, as_json)


def build_method(
    name: str,
    settings: Sequence[str] | None,
    poisoned: Path | None,
    mask_ratio: float | None,
    masking: str | None,
    epochs: float | None,
) -> AnyMethod:
    """The method with only those settings that were given."""
    given: dict[str, Any] = {"mask_ratio": mask_ratio, "masking": masking, "epochs": epochs}
    known = {key: value for key, value in given.items() if value is not None}
    known |= read_options(settings)
    if poisoned is not None:
        known["poisoned_ids"] = sorted(json.loads(poisoned.read_bytes())["poisoned"])
    method: AnyMethod = TypeAdapter(AnyMethod).validate_python(
        {"type": name, "hyperparameters": known}
    )
    return method


def all_phrases(
    phrases: Sequence[str] | None, preset: str | None, triggered: Path | str | None
) -> list[str]:
    """The given phrases and the preset's; a triggered set needs some, and they need it."""
    from disp_engine.metrics.success import KEYWORDS

    if preset is not None and preset not in KEYWORDS:
        leave(f"--preset {preset} is unknown; known: {', '.join(KEYWORDS)}", USAGE)
    found = [*(phrases or ()), *(KEYWORDS[preset] if preset else ())]
    if (triggered is None) != (not found):
        leave("--triggered and --phrase or --preset are given together or not at all", USAGE)
    return found


def read_options(given: Sequence[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` pairs; a value that is JSON is read as such, any other is a text."""
    found: dict[str, Any] = {}
    for pair in given or ():
        name, equals, text = pair.partition("=")
        if not equals:
            leave(f"{pair}: NAME=VALUE is expected", USAGE)
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def require_archive(given: str) -> None:
    """Leave unless it is the id of a file, or a file on this machine."""
    path = Path(given)
    if path.is_dir():
        pack = f"cd {shlex.quote(given)} && zip -r ../data.zip ."
        leave(f"{given} is a folder; pack it and submit the archive: {pack}", USAGE)
    if not FILE_ID.fullmatch(given) and not path.is_file():
        leave(f"no such file: {given}", USAGE)


def draft_evaluation(
    triggered: str | None, clean: str | None, phrases: Sequence[str]
) -> Evaluation | None:
    """What to measure, before its files are uploaded; None if there is nothing."""
    if triggered is None and clean is None:
        return None
    return Evaluation(
        triggered_file=NOT_YET_UPLOADED if triggered else None,
        clean_file=NOT_YET_UPLOADED if clean else None,
        success=SuccessMatcher(phrases=list(phrases)) if phrases else None,
    )


def upload_inputs(
    client: Client,
    draft: DefenseJobCreate,
    training: str,
    triggered: str | None,
    clean: str | None,
) -> DefenseJobCreate:
    """Upload what is not yet there; the draft with the ids of its files."""
    evaluation = draft.evaluation
    if evaluation is not None:
        files = {
            "triggered_file": file_id(client, triggered, FilePurpose.EVALUATION),
            "clean_file": file_id(client, clean, FilePurpose.EVALUATION),
        }
        evaluation = evaluation.model_copy(update=files)
    training_file = file_id(client, training, FilePurpose.FINE_TUNE)
    changes = {"training_file": training_file, "evaluation": evaluation}
    return draft.model_copy(update=changes)


def file_id(client: Client, given: str | None, purpose: FilePurpose) -> str | None:
    """The id itself, or that of the file which is now uploaded."""
    if given is None or FILE_ID.fullmatch(given):
        return given
    announce(f"uploading {given}")
    return client.upload(Path(given), purpose).id


def open_client(
    url: str | None, api_key: str | None, patience_s: float = SHORT_PATIENCE_S
) -> Client:
    """A client of the service that options, environment or a nearby data folder name."""
    connection = find_connection(url, api_key)
    return Client(connection.url, connection.api_key, patience_s=patience_s)


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


def show_local_report(out: Path, as_json: bool) -> None:
    """Print what the engine has written."""
    from client.render import open_stdout, results_table, samples_text
    from schemas.reports import Report

    report = Report.model_validate_json((out / "report.json").read_bytes())
    if as_json:
        print_json(report)
        return
    open_stdout().print(results_table(report))
    print(samples_text(report))
    print_paths(sorted(path for path in out.iterdir() if path.is_file()))


def print_result(content: dict[str, Any], as_json: bool) -> None:
    """A record as JSON, or one line for each of its fields."""
    if as_json:
        print_json(content)
        return
    for name, value in content.items():
        print(f"{name}: {value}")


def print_json(content: BaseModel | dict[str, Any] | list[Any]) -> None:
    """JSON on stdout."""
    plain = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
    print(json.dumps(plain, indent=2))


def print_paths(paths: Sequence[Path]) -> None:
    """One path on each line."""
    for path in paths:
        print(path)


def announce(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


def leave(text: str, code: int) -> NoReturn:
    """Say why and end with this status."""
    announce(text)
    raise SystemExit(code)


def exit_code(error: DispError) -> int:
    """The status that tells scripts what kind of error it was."""
    match error:
        case JobFailed():
            return FAILED
        case NotConfigured():
            return USAGE
        case NotAuthorised():
            return NOT_AUTHORISED
        case Unavailable() | Broken():
            return UNAVAILABLE
        case ServiceError() | NotGenuine():
            return REFUSED
        case _:
            return UNAVAILABLE


def describe(error: ValidationError) -> str:
    """What is wrong with which setting, one line for each."""
    wrong = [(setting_of(entry["loc"]), entry["msg"]) for entry in error.errors()]
    return "\n".join(f"{place}: {message}" if place else message for place, message in wrong)


def setting_of(place: Sequence[int | str]) -> str:
    """The name of a setting as the user gave it, less the method's type in front of it."""
    names = [str(part) for part in place]
    if "hyperparameters" in names:
        names = names[names.index("hyperparameters") + 1 :]
    return ".".join(names)


def main() -> None:
    """Run the command and turn what goes wrong into an exit status."""
    try:
        read_secret_files()
        app()
    except (SecretGivenTwice, SecretUnreadable) as error:
        leave(f"error: {error}", USAGE)
    except DispError as error:
        leave(f"error: {error}", exit_code(error))
    except StorageError as error:
        leave(f"error: {error}", UNAVAILABLE)
    except ValidationError as error:
        leave(f"error: {describe(error)}", USAGE)
    except OSError as error:
        leave(f"error: {error}", USAGE)


if __name__ == "__main__":
    main()
