"""What the verdict says of datasets, without any tuning.

Only detectors that decide are asked. These ask the base model alone, so a dataset costs one forward
for each sample, and hundreds of them are feasible.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from disp_engine import registry
from disp_engine.bench.cells import Cell
from disp_engine.context import check
from disp_engine.defences.defence import Defence
from disp_engine.detection.examination import measurements, verdict_of
from disp_engine.detection.findings import Findings
from disp_engine.detection.interfaces import Evidence
from disp_engine.training.projector import snapshot


def bare_verdict(defence: Defence[Any]) -> Findings:
    """The verdict of a run that has not tuned its model."""
    cache, prepared = defence.prepare()
    generation, base = defence.generation(prepared), snapshot(defence.model)
    known = {name: registry.detector(name) for name in registry.DETECTORS}
    deciding = {name: detector for name, detector in known.items() if detector.decides}
    parts = []
    size = defence.settings.micro_batch
    for start in range(0, len(prepared.usable), size):
        batch = prepared.usable[start : start + size]
        evidence = Evidence(defence.model, cache, batch, generation, defence.seed, base=base)
        parts.append(measurements(evidence, deciding))
        check(defence.context)
    verdict = verdict_of({n: torch.cat([part[n] for part in parts]).numpy() for n in parts[0]})
    return Findings(prepared.usable, verdict)


def verdict_rows(
    cells: Sequence[Cell], measured: Sequence[Mapping[str, Any]], model: str, seed: int
) -> list[dict[str, Any]]:
    """One row for each dataset."""
    return [
        {
            "table": cell.table, "model": model,
            "trigger": cell.attack.label if cell.attack.rate else "none",
            "target": cell.attack.target if cell.attack.rate else "none",
            "poisoning_rate": cell.attack.rate, "defence": cell.defence,
            "seed": seed, "draw": cell.draw,
            "detection": found["detection"], "seconds": found["seconds"],
        }
        for cell, found in zip(cells, measured, strict=True)
    ]  # fmt: skip
