"""`disp submit`: files go up, a job comes of them."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from client.commands.connection import LONG_PATIENCE_S, SHORT_PATIENCE_S, open_client
from client.commands.exits import USAGE, leave
from client.commands.jobs import end_with, watch_to_end
from client.commands.method import all_phrases, build_method, read_options
from client.commands.options import (
    ApiKey,
    Artifacts,
    Epochs,
    Json,
    Masking,
    MaskRatio,
    MethodType,
    Options,
    Phrases,
    Preset,
    Seed,
    Sidecar,
    Stages,
    Url,
)
from client.commands.output import announce
from client.config import MODEL
from client.sdk import Client
from schemas.files import FilePurpose
from schemas.requests import ALL_STAGES, DefenseJobCreate, Evaluation, SuccessMatcher

FILE_ID = re.compile(r"file_[0-9a-f]{32}")
NOT_YET_UPLOADED = "file_" + "0" * 32


def submit(
    training: Annotated[str, typer.Argument(help="A zip or tar of LLaVA data, or a file id.")],
    model: Annotated[str, typer.Option(help="A model of the service's.")] = MODEL,
    triggered: Annotated[str | None, typer.Option(help="Like TRAINING, with trigger.")] = None,
    clean: Annotated[str | None, typer.Option(help="Like TRAINING, without trigger.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="A projector to start from: safetensors, or a file id.")
    ] = None,
    stage: Stages = None,
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
    for given in filter(None, (training, triggered, clean, checkpoint)):
        require_archive(given)
    draft = DefenseJobCreate(
        model=model,
        training_file=NOT_YET_UPLOADED,
        checkpoint_file=NOT_YET_UPLOADED if checkpoint else None,
        evaluation=draft_evaluation(triggered, clean, phrases),
        method=build_method(method, setting, poisoned, mask_ratio, masking, epochs),
        stages=stage or list(ALL_STAGES),  # type: ignore[arg-type]  # pydantic judges it
        validation="strict" if strict else "quarantine",
        artifacts=artifact or [],  # type: ignore[arg-type]  # pydantic judges it
        model_options=read_options(model_option),
        seed=seed,
        suffix=suffix,
    )
    patience_s = LONG_PATIENCE_S if follow else SHORT_PATIENCE_S
    with open_client(url, api_key, patience_s) as client:
        files = (training, triggered, clean, checkpoint)
        job = client.create_job(upload_inputs(client, draft, *files))
        announce(f"created {job.id}")
        end_with(watch_to_end(client, job.id) if follow else job, as_json)


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
    checkpoint: str | None,
) -> DefenseJobCreate:
    """Upload what is not yet there; the draft with the ids of its files."""
    evaluation = draft.evaluation
    if evaluation is not None:
        files = {
            "triggered_file": file_id(client, triggered, FilePurpose.EVALUATION),
            "clean_file": file_id(client, clean, FilePurpose.EVALUATION),
        }
        evaluation = evaluation.model_copy(update=files)
    changes = {
        "training_file": file_id(client, training, FilePurpose.FINE_TUNE),
        "checkpoint_file": file_id(client, checkpoint, FilePurpose.CHECKPOINT),
        "evaluation": evaluation,
    }
    return draft.model_copy(update=changes)


def file_id(client: Client, given: str | None, purpose: FilePurpose) -> str | None:
    """The id itself, or that of the file which is now uploaded."""
    if given is None or FILE_ID.fullmatch(given):
        return given
    announce(f"uploading {given}")
    return client.upload(Path(given), purpose).id
