"""`disp demo`, `poison`, `bench`: attacks that are made in order to measure the defence."""

from pathlib import Path
from typing import Annotated

import typer

from client.commands.exits import STOPPED, leave, refusals
from client.commands.method import read_options
from client.commands.options import Json, Options, Seed
from client.commands.output import print_paths, print_result


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
    with refusals():
        if data is None:
            built = poison_world(out, attack, samples=samples, test=test, seed=seed)
        else:
            built = poison_dataset(out, attack, data, test=test, seed=seed)
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


def bench(
    table: Annotated[
        str, typer.Argument(help="table1..4, figure2..4, modality, detection, purmm1..6, ...")
    ],
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
    from disp_engine.errors import Aborted

    work = work or out / "work"
    spec = BenchSpec(table, out, work, model, data, quick, samples, test, seed)
    with refusals():
        try:
            found = measure_table(spec)
        except Aborted:
            leave(f"stopped; all finished work is kept in {work}", STOPPED)
    if json_file is not None:
        write_json(json_file, found)
    print((out / f"{table}.md").read_text())
