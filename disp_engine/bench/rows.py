"""From what a cell measured to the row that is written."""

from collections.abc import Mapping, Sequence
from typing import Any

from disp_engine.bench.cells import Cell
from disp_engine.metrics.utility import (
    defence_effectiveness,
    relative_clean_performance,
    robust_improvement,
    trade_off,
)


def full_rows(
    cells: Sequence[Cell], measured: Sequence[Mapping[str, Any]], model: str, seed: int
) -> list[dict[str, Any]]:
    """Add what a row takes from the undefended row of its own case."""
    reference = {
        cell.case: found
        for cell, found in zip(cells, measured, strict=True)
        if cell.defence == "none" and not cell.mask_ratio
    }
    return [
        _row(cell, found, reference.get(cell.case), model, seed)
        for cell, found in zip(cells, measured, strict=True)
    ]


def _row(
    cell: Cell,
    found: Mapping[str, Any],
    undefended: Mapping[str, Any] | None,
    model: str,
    seed: int,
) -> dict[str, Any]:
    before = undefended or found["before"]
    cp, asr, rp = (
        (share(before[name]), share(found[name]))
        for name in ("clean_performance", "asr_with_trigger", "robust_performance")
    )
    row = {
        "table": cell.table,
        "model": model,
        "trigger": cell.attack.label,
        "target": cell.attack.target,
        "poisoning_rate": 0.0 if cell.defence == "clean" else cell.attack.rate,
        "defence": cell.defence,
        "start": cell.start,
        "seed": seed,
        "asr_with_trigger": found["asr_with_trigger"],
        "asr_without_trigger": found["asr_without_trigger"],
        "clean_performance": found["clean_performance"],
        "relative_clean_performance": relative_clean_performance(cp[1], cp[0]),
        "robust_performance": found["robust_performance"],
        "token_agreement": found["token_agreement"],
        "trade_off": trade_off(cp[1], asr[1]),
        "defence_effectiveness": defence_effectiveness(asr, cp),
        "robust_improvement": robust_improvement(rp, cp),
        "cider": found["cider"],
        "seconds": found["seconds"],
    }
    varied = {"mask_ratio": cell.mask_ratio, "objective": cell.objective}
    row |= {name: value for name, value in varied.items() if value is not None}
    also = ("filter", "modality", "kinds", "detection")
    return row | {name: found[name] for name in also if name in found}


def share(rate: Mapping[str, Any] | None) -> float | None:
    """The share of a rate, if it was measured."""
    return rate["rate"] if rate else None
