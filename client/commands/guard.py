"""`disp guard`: the answers of a model, guarded at test time."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.commands.exits import USAGE, leave, refusals
from client.commands.method import read_options

if TYPE_CHECKING:
    from disp_engine.interfaces import VisualModel

app = typer.Typer(help="Guard the answers of a model at test time.", no_args_is_help=True)

Model = Annotated[Path, typer.Option(exists=True, file_okay=False, help="A model's folder.")]
Projector = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="A tuned projector in place of the folder's."),
]
Name = Annotated[str, typer.Option("--guard", help="purmm, cleansight, blur, strip, ...")]
Options = Annotated[
    list[str] | None, typer.Option("--option", help="NAME=VALUE of the guard; repeatable.")
]
CalibrationFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="What `disp guard calibrate` wrote."),
]
Length = Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")]
Batch = Annotated[int, typer.Option(min=1, help="Questions answered together.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Take the first so many items [all].")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda [cuda where there is one].")]


@app.command("calibrate")
def calibrate(
    model: Model,
    data: Annotated[Path, typer.Option(exists=True, help="Clean LLaVA data, some 200 questions.")],
    out: Annotated[Path, typer.Option(help="The calibration to write.")],
    projector: Projector = None,
    first_layer: Annotated[int | None, typer.Option(min=0, help="[10 of 32]")] = None,
    last_layer: Annotated[int | None, typer.Option(min=0, help="[24 of 32]")] = None,
    percentile: Annotated[
        float | None, typer.Option(min=0, max=100, help="Of clean distances [99].")
    ] = None,
    tau: Annotated[float | None, typer.Option(min=0, help="[0.02 for 576 tokens]")] = None,
    limit: Limit = None,
    device: Device = None,
) -> None:
    """Learn what clean questions look like to this model, for CleanSight."""
    from tempfile import TemporaryDirectory

    from disp_engine import registry
    from disp_engine.data.dataset import read_dataset
    from disp_engine.guards.cleansight import CalibrationSettings
    from disp_engine.guards.cleansight import calibrate as learn
    from disp_engine.metrics.guarding import question_of

    given = {"first_layer": first_layer, "last_layer": last_layer, "percentile": percentile,
             "tau": tau}  # fmt: skip
    with refusals():
        known = {name: value for name, value in given.items() if value is not None}
        settings = CalibrationSettings.of_card(registry.card_defaults(model) | known)
        loaded = load(model, projector, device)
        with TemporaryDirectory() as pool:
            clean = read_dataset(data, Path(pool))
            questions = [question_of(sample, clean) for sample in clean.samples[:limit]]
        found = learn(loaded, questions, settings)
        found.save(out)
    told = {name: getattr(found, name) for name in ("samples", "threshold", "derived")}
    print(json.dumps({"calibration": str(out)} | told))


@app.command("evaluate")
def evaluate(
    model: Model,
    triggered: Annotated[
        Path | None, typer.Option(exists=True, help="LLaVA data with the trigger.")
    ] = None,
    clean: Annotated[
        Path | None, typer.Option(exists=True, help="The same without the trigger.")
    ] = None,
    phrase: Annotated[
        list[str] | None,
        typer.Option(help="An attack succeeded if an answer holds it; repeatable."),
    ] = None,
    guard: Name = "purmm",
    option: Options = None,
    calibration: CalibrationFile = None,
    projector: Projector = None,
    length: Length = 64,
    batch: Batch = 1,
    limit: Limit = None,
    device: Device = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="The result also here.")] = None,
) -> None:
    """Measure a guard against the bare model: attack success, performance, detection, latency."""
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from disp_engine import registry
    from disp_engine.context import SilentContext
    from disp_engine.data.dataset import read_dataset
    from disp_engine.metrics.evaluator import EvaluationSets
    from disp_engine.metrics.guarding import GuardEvaluator
    from disp_engine.metrics.success import matcher

    if triggered is None and clean is None:
        leave("error: give --triggered, --clean or both", USAGE)

    with refusals():
        loaded = load(model, projector, device)
        options = guard_options(model, guard, option, calibration)
        bare, built = (
            registry.guard(*given) for given in (("undefended", loaded), (guard, loaded, options))
        )
        evaluator = GuardEvaluator(bare, built, length, batch, SilentContext())
        with TemporaryDirectory() as pool:
            read = [
                None if path is None else read_dataset(path, Path(pool))
                for path in (triggered, clean)
            ]
            cut = [one and replace(one, samples=one.samples[:limit]) for one in read]
            success = matcher("contains_any", phrase) if phrase else None
            found = evaluator.run(EvaluationSets(cut[0], cut[1], success))
    asked = {"guard": guard, "options": options, "model": str(model), "batch": batch,
             "derived": built.derived}  # fmt: skip
    text = json.dumps(asked | found, indent=1)
    if json_file is not None:
        json_file.write_text(text)
    print(text)


@app.command("serve")
def serve(
    model: Model,
    guard: Name = "purmm",
    option: Options = None,
    calibration: CalibrationFile = None,
    projector: Projector = None,
    length: Length = 256,
    batch: Batch = 8,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8100,
    device: Device = None,
) -> None:
    """Answer chat completions of an autoregressive model as OpenAI's API does, with verdicts."""
    import uvicorn

    from disp_engine import registry
    from disp_engine.guards.respondent import refuse_derived
    from workers.guard.app import Served, create_app

    with refusals():
        loaded = load(model, projector, device)
        refuse_derived(loaded, "the server")
        built = registry.guard(guard, loaded, guard_options(model, guard, option, calibration))
        served = create_app(built, Served(model.resolve().name, guard, length), batch=batch)
    print(f"guarding {model} with {guard} at http://{host}:{port}/v1", file=sys.stderr)
    uvicorn.run(served, host=host, port=port, log_level="warning")


def load(folder: Path, projector: Path | None, device: str | None) -> "VisualModel":
    """The model of a folder, perhaps with another projector."""
    import torch

    from disp_engine import registry
    from disp_engine.models.projector import load_projector

    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = registry.load_visual(folder, device=place)
    if projector is not None:
        load_projector(model.projector, model.projector_prefix, projector)
    return model


def guard_options(
    model: Path, guard: str, given: list[str] | None, calibration: Path | None
) -> dict[str, Any]:
    """What a guard is told: the model's card, then the command; a calibration is an option too."""
    from disp_engine import registry

    told = read_options(given)
    if calibration is not None:
        told = {"calibration": str(calibration)} | told
    return registry.guard_defaults(model, guard, told) | told
