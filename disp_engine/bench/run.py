"""Runs one table and writes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from disp_engine import registry
from disp_engine.bench.cells import FULL, QUICK, QUICK_CELLS, Cell
from disp_engine.bench.guards import GUARD_TABLES, GuardBench, GuardCell, painter_of
from disp_engine.bench.output import content, write_csv, write_json, write_markdown
from disp_engine.bench.plots import plot
from disp_engine.bench.rows import full_rows
from disp_engine.bench.summaries import summary
from disp_engine.bench.tables import TABLES
from disp_engine.bench.verdicts import verdict_rows
from disp_engine.bench.workbench import Workbench, smaller
from disp_engine.context import RunContext, check
from disp_engine.errors import InvalidRequestError

FAMILIES = {"table2": "lavida"}
"""Families of the built-in checkpoints that a table is of; the others are of LLaDA-V."""

Told = Callable[[int, int, Cell | GuardCell], None]
"""Called before each cell with its number, how many there are, and the cell."""


@dataclass(frozen=True)
class BenchSpec:
    """One table on one model: numbers left out are the paper's, or those of a quick run."""

    table: str
    out: Path
    work: Path
    model_dir: Path | None = None
    data: Path | None = None
    quick: bool = False
    samples: int | None = None
    test: int | None = None
    seed: int = 0


def run_bench(spec: BenchSpec, context: RunContext, told: Told) -> dict[str, Any]:
    """Measure every cell that is not yet measured; write JSON, CSV, Markdown and a plot.

    The files are written anew after each cell, so that a table that was stopped shows what it has.
    """
    if spec.table in GUARD_TABLES:
        return _run_guards(spec, context, told)
    if spec.table not in TABLES:
        known = ", ".join([*TABLES, *GUARD_TABLES])
        raise InvalidRequestError(f"table {spec.table!r} is unknown; known: {known}.")
    if spec.table == "table4" and spec.data is not None:
        raise InvalidRequestError(
            "table4 on other data than the built-in world is measured by lmms-eval."
        )
    _require("matplotlib", "pycocoevalcap")
    cells = list(TABLES[spec.table]())
    if spec.quick:
        cells = cells[: QUICK_CELLS.get(spec.table)]
    model_dir = spec.model_dir or builtin_for(spec.table)
    size = smaller(QUICK if spec.quick else FULL, samples=spec.samples, test=spec.test)
    bench = Workbench(model_dir, spec.work, size, spec.seed, context, spec.data)
    found: dict[str, Any] = {}
    measured: list[dict[str, Any]] = []
    for number, cell in enumerate(cells):
        told(number, len(cells), cell)
        measured.append(bench.row(cell))
        found = _write(spec, cells[: number + 1], measured, model_dir.name)
        check(context)
    if cells[0].measure != "verdict":
        plot(spec.out / f"{spec.table}.png", spec.table, found)
    return found


def _run_guards(spec: BenchSpec, context: RunContext, told: Told) -> dict[str, Any]:
    """The same for a table of guards, which is of an autoregressive model."""
    if spec.data is not None:
        raise InvalidRequestError(f"{spec.table}: guards are measured on the built-in world.")
    _require("matplotlib", "peft")
    size = smaller(QUICK if spec.quick else FULL, samples=spec.samples, test=spec.test)
    model_dir = spec.model_dir or builtin_for(spec.table)
    cells = [cell for cell in GUARD_TABLES[spec.table]() if _can_run(cell, model_dir, context)]
    bench = GuardBench(model_dir, spec.work, size, spec.seed, context)
    found: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for number, cell in enumerate(cells):
        told(number, len(cells), cell)
        rows.append(bench.row(cell))
        found = _write_rows(spec, rows)
        check(context)
    plot(spec.out / f"{spec.table}.png", spec.table, found)
    return found


def _can_run(cell: GuardCell, model_dir: Path, context: RunContext) -> bool:
    """Whether the network is there that the cell's guard needs; if not, the row will be missing."""
    painter = painter_of(cell.defence, model_dir)
    if painter is None or (painter / "card.yaml").is_file():
        return True
    context.message(
        "warn", f"{cell.table}: no row of {cell.label}: {painter.name} is not beside the model"
    )
    return False


def _require(*packages: str) -> None:
    """Say before hours of work that the files could not be written."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise InvalidRequestError(
            f"bench: not installed: {', '.join(missing)}; install the extra `disp[bench]`."
        )


def builtin_for(table: str) -> Path:
    """The built-in checkpoint of the family that a table is of."""
    family = FAMILIES.get(table, "llada_v")
    kind = "diffusion"
    if table in GUARD_TABLES:
        family, kind = "llava_1_5", "autoregressive"
    for card in registry.builtin_models(kind):
        if card["family"] == family:
            return Path(card["path"])
    raise InvalidRequestError(f"{table}: there is no built-in {family} checkpoint; give a model.")


def _write(
    spec: BenchSpec, cells: Sequence[Cell], measured: Sequence[dict[str, Any]], model: str
) -> dict[str, Any]:
    rows_of = verdict_rows if cells[0].measure == "verdict" else full_rows
    rows = rows_of(cells, measured, model, spec.seed)
    return _write_rows(spec, rows, **summary(spec.table, rows))


def _write_rows(spec: BenchSpec, rows: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    found = content(rows, spec.table, quick=spec.quick) | more
    write_json(spec.out / f"{spec.table}.json", found)
    write_csv(spec.out / f"{spec.table}.csv", found)
    write_markdown(spec.out / f"{spec.table}.md", spec.table, found)
    return found
