"""Assembles `report.json`."""

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from disp_engine.data.dataset import Dataset
from disp_engine.defences.defence import Outcome
from disp_engine.defences.settings import DefenceSettings
from disp_engine.interfaces import VisualModel
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.report.log import StageLog
from disp_engine.spec import RunSpec
from disp_engine.stages import digest

VOLATILE = ("stages", "latency", "content_sha256")
"""Fields that differ between two runs of the same work; `content_sha256` covers the others."""


def build_report(
    spec: RunSpec,
    model: VisualModel,
    training: Dataset,
    sets: EvaluationSets,
    settings: DefenceSettings,
    outcome: Outcome,
    log: StageLog,
) -> dict[str, Any]:
    """All there is to know of a run, except times the same for the same work."""
    report: dict[str, Any] = {
        "model": spec.model_id,
        "evaluation": _evaluation(outcome),
        "cost": _cost(outcome),
        "samples": _samples(training, outcome),
        "quarantined": [
            {"id": name, "reason": reason} for name, reason in outcome.quarantined.items()
        ],
        "stages": list(log.stages),
        "settings": _settings(spec, settings, outcome),
        "seeds": {"run": spec.seed, "saliency": spec.seed},
        "versions": _versions(),
        "hashes": {
            "model": model.revision,
            "training_data": training.sha256,
            "evaluation_data": sets.sha256,
            **outcome.hashes,
        },
        "saliency": outcome.saliency,
    }
    if outcome.guard is not None:
        report["guard"] = {"name": outcome.guard.name} | dict(outcome.guard.measured)
        report["latency"] = dict(outcome.guard.latency)
    if outcome.findings is not None:
        report["verdict"] = outcome.findings.to_json() | {
            "recovered_asr": _recovered(outcome, sets),
            "modality": _told(outcome, "modality") or None,
        }
    return report | {"content_sha256": content_sha256(report)}


def content_sha256(report: Mapping[str, Any]) -> str:
    """Digest of the report without what differs between two runs of the same work."""
    return digest({key: value for key, value in report.items() if key not in VOLATILE})


def _evaluation(outcome: Outcome) -> dict[str, Any]:
    before, after = outcome.before, outcome.after
    rates = [side["clean_performance"] for side in (before, after)]
    relative = None
    if all(rates) and rates[0]["rate"] and rates[1]["rate"] is not None:
        relative = rates[1]["rate"] / rates[0]["rate"]
    return {"before": before, "after": after, "relative_clean_performance": relative}


def _recovered(outcome: Outcome, sets: EvaluationSets) -> dict[str, Any] | None:
    """The recovered trigger's success, and whether it was measured on held-out pictures."""
    if outcome.recovered is None:
        return None
    return _told(outcome, "asr") | {"held_out": sets.clean is not None}


def _told(outcome: Outcome, what: str) -> dict[str, Any]:
    """One of the things that are told of the recovered trigger, before and after."""
    return {side: found[what] for side, found in (outcome.recovered or {}).items()}


def _cost(outcome: Outcome) -> dict[str, Any]:
    """What the defence cost in points of clean performance and token agreement."""
    found = {}
    for name in ("clean_performance", "token_agreement"):
        before, after = outcome.before[name], outcome.after[name]
        both = before and after and before["scored"] and after["scored"]
        found[f"{name}_points"] = 100 * (before["rate"] - after["rate"]) if both else None
    return found


def _samples(training: Dataset, outcome: Outcome) -> dict[str, int]:
    changed = sum(
        done.responses != [turn.text for turn in sample.turns[1::2]]
        for sample in training.samples
        if (done := outcome.rewritten.get(sample.id))
    )
    return {
        "total": len(training.samples) + len(training.refused),
        "rewritten": len(outcome.rewritten),
        "changed": changed,
        "passed_through": len(outcome.passed_through),
        "kept": len(outcome.kept),
        "removed": len(outcome.removed),
        "quarantined": len(outcome.quarantined),
    }


def _settings(spec: RunSpec, settings: DefenceSettings, outcome: Outcome) -> dict[str, Any]:
    return {
        "method": spec.method["type"],
        "hyperparameters": settings.to_json(),
        "retraining": vars(settings.retraining()),
        "generation": asdict(outcome.generation),
        "shortcuts": {name: found.to_json() for name, found in outcome.shortcuts.items()},
        "model_options": dict(spec.model_options),
        "success": dict(spec.success) if spec.success else None,
        "validation": spec.validation,
        "stages": sorted(spec.stages),
    }


def _versions() -> dict[str, str]:
    packages = ("disp", "torch", "transformers", "accelerate", "safetensors", "numpy", "pillow")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
