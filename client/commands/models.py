"""`disp models` and `disp export`: model folders, looked at, registered and written."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from client.commands.exits import REFUSED, refusals
from client.commands.keys import DatabaseUrl, open_store
from client.commands.options import Json
from client.commands.output import print_json, print_result

app = typer.Typer(help="Look at a model folder.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="A checkpoint folder.", exists=True, file_okay=False)]


@app.command("inspect")
def inspect_folder(folder: Folder, as_json: Json = False) -> None:
    """Say what a folder holds and what a job on it takes, without loading the weights."""
    from disp_engine.models.inspection import inspect_model

    with refusals():
        found = inspect_model(folder).to_json()
    print_result(found if as_json else _told(found), as_json)
    _leave_with(found["problems"])


@app.command("verify")
def verify_folder(folder: Folder, as_json: Json = False) -> None:
    """Check names, shapes, every value and promised hashes."""
    from disp_engine.models.inspection import verify_model

    with refusals():
        found = verify_model(folder).to_json()
    lines = {**found["sha256"], "ignored pickles": ", ".join(found["ignored"]) or "none"}
    print_result(found if as_json else lines, as_json)
    _leave_with(found["problems"])


@app.command("register")
def register(
    folder: Folder,
    database_url: DatabaseUrl,
    name: Annotated[
        str | None, typer.Option("--id", help="What jobs call it [the folder's name].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify a folder and let jobs name it; workers read it at this path.

    The revision is the sha256 of the list of its files' hashes: registered again, an unchanged
    folder keeps it. A folder with a problem is not registered.
    """
    from client.prepare import registration
    from disp_engine.models.inspection import verify_model

    with refusals():
        verified = verify_model(folder)
        record = registration(name or folder.resolve().name, folder.resolve(), verified.sha256)
    _leave_with(list(verified.problems))
    with open_store(database_url) as store:
        store.register_model(record)
    facts = {"id": record.id, "family": record.family, "kind": record.kind}
    print_result(facts | {"revision": record.revision, "path": record.path}, as_json)


def export(
    folder: Folder,
    projector: Annotated[
        Path, typer.Argument(help="A job's mm_projector.safetensors.", exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Argument(help="What to write; it must not be there yet.")],
    projector_only: Annotated[
        bool, typer.Option("--projector-only", help="Write one file, not a whole folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a checkpoint that holds a purified projector, for the model's own tooling."""
    from disp_engine.models.export import export_checkpoint, export_projector

    write = export_projector if projector_only else export_checkpoint
    with refusals():
        done = write(folder, projector, out)
    if as_json:
        print_json(done.to_json())
        return
    print(done.loading if projector_only else out)
    if done.left_out:
        print(f"left out: {', '.join(done.left_out)}", file=sys.stderr)


def _told(found: dict[str, Any]) -> dict[str, Any]:
    memory, sizes = found["memory"], found["sizes"]
    return {
        "family": found["family"],
        "parameters": f"{found['parameters']:,}",
        "dtypes": ", ".join(f"{n} of {name}" for name, n in found["dtypes"].items()) or "none",
        "hidden size, layers": f"{sizes['hidden_size']}, {sizes['num_hidden_layers']}",
        "files": ", ".join(f"{name} ({_gib(n)})" for name, n in found["files"].items()) or "none",
        "memory: frozen weights": _gib(memory["weights"]),
        "memory: projector in training": _gib(memory["training"]),
        f"memory: one sample of {memory['positions']} positions": _gib(memory["activations"]),
        "memory: features of one picture": _gib(memory["features"]),
    }


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.2f} MiB"


def _leave_with(problems: list[str]) -> None:
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    if problems:
        raise SystemExit(REFUSED)
