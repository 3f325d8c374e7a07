"""`disp purify`: the engine on this machine, without the service."""

from pathlib import Path
from typing import Annotated

import typer

from client.commands.exits import FAILED, REFUSED, STOPPED, leave
from client.commands.method import all_phrases, build_method
from client.commands.options import (
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
)
from client.commands.output import print_json, print_paths
from schemas.requests import ALL_STAGES, SuccessMatcher

ENGINE_REFUSED, ENGINE_STOPPED = 2, 75


def purify(
    model: Annotated[Path, typer.Option(exists=True, file_okay=False, help="A checkpoint folder.")],
    data: Annotated[Path, typer.Option(exists=True, help="The LLaVA data to purify.")],
    out: Annotated[Path, typer.Option(help="Where the artifacts go.")],
    triggered: Annotated[Path | None, typer.Option(exists=True)] = None,
    clean: Annotated[Path | None, typer.Option(exists=True)] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A projector to start from.")
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
    seed: Seed = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of torch.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Tune with so many together [one for each GPU].")
    ] = None,
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
        checkpoint_file=str(checkpoint.resolve()) if checkpoint else None,
        stages=stage or list(ALL_STAGES),
        success=success,
        method=defence.model_dump(mode="json", exclude_none=True),
        defaults={},
        seed=seed,
        work_dir=str(work.resolve() if work else out.resolve().with_name(f"{out.name}.work")),
        out_dir=str(out.resolve()),
        threads=threads,
        processes=processes,
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


def show_local_report(out: Path, as_json: bool) -> None:
    """Print what the engine has written."""
    from client.render import guard_text, open_stdout, results_table, samples_text
    from schemas.reports import Report

    report = Report.model_validate_json((out / "report.json").read_bytes())
    if as_json:
        print_json(report)
        return
    open_stdout().print(results_table(report))
    print(samples_text(report))
    if told := guard_text(report):
        print(told)
    print_paths(sorted(path for path in out.iterdir() if path.is_file()))
