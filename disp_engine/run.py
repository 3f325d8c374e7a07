"""Runs a spec from files to files: read, defend, report."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from disp_engine import registry
from disp_engine.context import RunContext
from disp_engine.data.dataset import Dataset
from disp_engine.data.writer import purified_record, write_dataset
from disp_engine.defences.defence import Outcome
from disp_engine.defences.rewriting import Rewritten
from disp_engine.defences.settings import DefenceSettings
from disp_engine.ingest import Ingested, ingest
from disp_engine.interfaces import DiffusionModel
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.success import matcher
from disp_engine.records import Sample
from disp_engine.report.build import build_report
from disp_engine.report.log import StageLog
from disp_engine.report.page import write_page
from disp_engine.sharing import Alone, Sharing
from disp_engine.spec import RunSpec


def run(
    spec: RunSpec,
    context: RunContext,
    sharing: Sharing | None = None,
    ingested: Ingested | None = None,
) -> None:
    """Do what the spec asks and leave the artifacts in its `out_dir`.

    `ingested` are the spec's data where they were read before, which is done again otherwise.
    """
    if spec.threads:
        torch.set_num_threads(spec.threads)
    log = StageLog(context)
    spec.out_dir.mkdir(parents=True, exist_ok=True)
    kind = registry.defence(str(spec.method.get("type")))
    given = spec.method.get("hyperparameters", {})
    card = registry.card_defaults(spec.model_dir)
    settings = kind.settings_type.resolve(card, spec.defaults, given)
    with log.timed("ingest", ingested.began if ingested else None):
        data = ingested or ingest(spec, log)
        success = matcher(**spec.success) if spec.success else None
        training, sets = data.training, EvaluationSets(data.triggered, data.clean, success)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = registry.load_model(spec.model_dir, device=device, options=spec.model_options)
        stages = spec.work_dir / "stages"
        given = (model, training, sets, settings, spec.seed, stages, log)
        defence = kind(*given, sharing=sharing or Alone())
        cache, prepared = defence.prepare()
    if spec.role == "assists":
        return defence.assist(cache, prepared)
    outcome = defence.run(cache, prepared)
    with log.timed("report"):
        _write(spec, model, training, sets, settings, outcome, log)


def _write(
    spec: RunSpec,
    model: DiffusionModel,
    training: Dataset,
    sets: EvaluationSets,
    settings: DefenceSettings,
    outcome: Outcome,
    log: StageLog,
) -> None:
    _write_data(training, outcome, spec.out_dir)
    model.save_projector(spec.out_dir / "mm_projector.safetensors")
    report = build_report(spec, model, training, sets, settings, outcome, log)
    (spec.out_dir / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False))
    write_page(report, spec.out_dir / "report.html")
    _sync(spec.out_dir)


def _write_data(training: Dataset, outcome: Outcome, folder: Path) -> None:
    kept, lines = [], []
    passed = {sample.id for sample in outcome.passed_through}
    untouched = {sample.id for sample in outcome.kept}
    for sample in training.samples:
        done = outcome.rewritten.get(sample.id)
        if done and done.responses is not None:
            kept.append((sample, purified_record(sample, done.responses)))
            lines.append(_rewritten_line(sample, done))
        elif sample.id in passed:
            kept.append((sample, dict(sample.record)))
            lines.append({"id": sample.id, "status": "passed_through"})
        elif sample.id in untouched:
            kept.append((sample, dict(sample.record)))
            lines.append({"id": sample.id, "status": "kept"})
    lines += [
        {"id": name, "status": "quarantined", "reason": reason}
        for name, reason in outcome.quarantined.items()
    ]
    lines += [
        {"id": name, "status": "removed", "reason": reason}
        for name, reason in outcome.removed.items()
    ]
    used = {image for sample, _ in kept for image in sample.images}
    write_dataset(training, [record for _, record in kept], used, folder)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")


def _rewritten_line(sample: Sample, done: Rewritten) -> dict[str, Any]:
    originals = [turn.text for turn in sample.turns[1::2]]
    purified = done.responses or []
    return {
        "id": sample.id,
        "status": "rewritten",
        "changed": purified != originals,
        "original": originals,
        "purified": purified,
        "masked_tokens": done.masked,
        "visual_tokens": done.tokens,
    }


def _sync(folder: Path) -> None:
    """Let the artifacts reach the disk before the run says that it is done."""
    for path in (*filter(Path.is_file, folder.iterdir()), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
