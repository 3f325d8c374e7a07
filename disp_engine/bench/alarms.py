"""How often clean data are called poisoned.

A model is tuned on a clean draw as a job tunes it, once, and all its samples are measured. Then the
verdict is asked of disjoint parts, each as if it were a whole dataset: every part was in the tuning
data, as a job's own samples are, and parts are as independent of one another as samples are, given
the model. What a model does to all its parts alike is not averaged out within it, so many models
are needed, and rows say which parts share one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from disp_engine.bench.cells import Cell
from disp_engine.defences.disp import DiSP
from disp_engine.detection.examination import verdict_of
from disp_engine.metrics.rate import Rate

PART = 200
"""Samples of a part."""


def alarms(defence: DiSP) -> list[dict[str, Any]]:
    """The verdict on each part of a clean dataset; the last samples that fill none are left out."""
    cache, prepared = defence.prepare()
    generation, _ = defence.begin(cache, prepared)
    measured = defence.examine(cache, prepared, generation)
    size = min(PART, len(prepared.usable))
    starts = range(0, len(prepared.usable) - size + 1, size)
    parts = [{name: taken[s : s + size] for name, taken in measured.items()} for s in starts]
    return [verdict_of(part).to_json() for part in parts]


def alarm_rows(
    cells: Sequence[Cell], measured: Sequence[Mapping[str, Any]], model: str, seed: int
) -> list[dict[str, Any]]:
    """One row for each part; `draw` is the model's number."""
    return [
        {
            "table": cell.table, "model": model, "trigger": "none", "target": "none",
            "poisoning_rate": 0.0, "defence": cell.defence, "seed": seed, "draw": cell.draw,
            "detection": verdict | {"auroc": None, "areas": {}},
            "seconds": round(found["seconds"] / len(found["verdicts"]), 3),
        }
        for cell, found in zip(cells, measured, strict=True)
        for verdict in found["verdicts"]
    ]  # fmt: skip


def alarm_rate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The share of parts that are called poisoned."""
    return Rate(sum(row["detection"]["poisoned"] for row in rows), len(rows)).to_json()
