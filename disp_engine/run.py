"""Runs a spec from files to files: read, defend, report."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from disp_engine import registry
from disp_engine.context import RunContext
from disp_engine.data.dataset import IMAGE_MARK, Dataset
from disp_engine.data.writer import purified_record, write_dataset
from disp_engine.defences.defence import Outcome
from disp_engine.defences.rewriting import Rewritten
from disp_engine.defences.settings import DefenceSettings
from disp_engine.errors import InvalidModelError
from disp_engine.ingest import Ingested, ingest
from disp_engine.interfaces import VisualModel
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.success import matcher
from disp_engine.models.export import pack_checkpoint
from disp_engine.models.projector import load_projector
from disp_engine.records import Sample
from disp_engine.report.build import build_report
from disp_engine.report.log import StageLog
from disp_engine.report.page import write_page
from disp_engine.report.previews import write_previews
from disp_engine.sharing import Alone, Sharing
from disp_engine.spec import RunSpec
from disp_engine.training.ranks import Ranks


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
    below = (registry.card_defaults(spec.model_dir), spec.defaults)
    layers = [registry.suited(defaults, given) for defaults in below]
    settings = kind.settings_type.resolve(*layers, given)
    with log.timed("ingest", ingested.began if ingested else None):
        data = ingested or ingest(spec, log)
        success = matcher(**spec.success) if spec.success else None
        training, sets = data.training, EvaluationSets(data.triggered, data.clean, success)
        model = _load_model(spec)
        stages = spec.work_dir / "stages"
        given = (model, training, sets, settings, spec.seed, stages, log)
        ranks, asked = _ranks(spec, stages), frozenset(spec.stages)
        defence = kind(*given, sharing=sharing or Alone(), ranks=ranks, asked=asked)
        cache, prepared = defence.prepare()
    if spec.role == "assists":
        return defence.assist(cache, prepared)
    outcome = defence.run(cache, prepared)
    with log.timed("report"):
        _write(spec, model, training, sets, defence.settings, outcome, log)


def _load_model(spec: RunSpec) -> VisualModel:
    """The model of the folder, with the projector that the run is to start from."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = registry.load_visual(spec.model_dir, device=device, options=spec.model_options)
    if spec.checkpoint_file is not None:
        try:
            load_projector(model.projector, model.projector_prefix, spec.checkpoint_file)
        except InvalidModelError as error:
            error.param = "checkpoint_file"
            raise
    return model


def _ranks(spec: RunSpec, stages: Path) -> Ranks | None:
    """Who tunes together with this process's like; None where it tunes alone."""
    count = spec.processes or torch.cuda.device_count()
    if count < 2:
        return None
    return Ranks(count, spec.model_dir, spec.model_options, stages, spec.threads)


def _write(
    spec: RunSpec,
    model: VisualModel,
    training: Dataset,
    sets: EvaluationSets,
    settings: DefenceSettings,
    outcome: Outcome,
    log: StageLog,
) -> None:
    """Leave what was asked for: an unpurified dataset or projector is in no output."""
    _write_samples(training, outcome, spec.out_dir)
    if "purify" in spec.stages:
        _write_dataset(training, outcome, spec.out_dir)
    if outcome.guard and outcome.guard.calibration:
        shutil.copy(outcome.guard.calibration, spec.out_dir)
    projector = spec.out_dir / "mm_projector.safetensors"
    if "retrain" in spec.stages:
        model.save_projector(projector)
    if "merged_checkpoint" in spec.artifacts:
        pack_checkpoint(spec.model_dir, projector, spec.out_dir / "merged_checkpoint.tar")
    report = build_report(spec, model, training, sets, settings, outcome, log)
    (spec.out_dir / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False))
    write_page(report, spec.out_dir / "report.html")
    _sync(spec.out_dir)


def _write_dataset(training: Dataset, outcome: Outcome, folder: Path) -> None:
    kept = _surviving(training, outcome)
    used = {image for sample, _ in kept for image in sample.images}
    write_dataset(training, [record for _, record in kept], used, folder)


def _write_samples(training: Dataset, outcome: Outcome, folder: Path) -> None:
    lines = [*_lines(training, outcome), *_fallen_lines(outcome)]
    _add_findings(lines, training, outcome, folder)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")


def _surviving(training: Dataset, outcome: Outcome) -> list[tuple[Sample, dict[str, Any]]]:
    """The samples of the output with the records that stand there."""
    unchanged = {sample.id for sample in (*outcome.passed_through, *outcome.kept)}
    found = []
    for sample in training.samples:
        done = outcome.rewritten.get(sample.id)
        if done and done.responses is not None:
            found.append((sample, purified_record(sample, done.responses)))
        elif sample.id in unchanged:
            found.append((sample, dict(sample.record)))
    return found


def _lines(training: Dataset, outcome: Outcome) -> Iterator[dict[str, Any]]:
    passed = {sample.id for sample in outcome.passed_through}
    untouched = {sample.id for sample in outcome.kept}
    for sample in training.samples:
        done = outcome.rewritten.get(sample.id)
        if done and done.responses is not None:
            yield _rewritten_line(sample, done)
        elif sample.id in passed:
            yield {"id": sample.id, "status": "passed_through"}
        elif sample.id in untouched:
            yield {"id": sample.id, "status": "kept"} | _said(sample)


def _fallen_lines(outcome: Outcome) -> Iterator[dict[str, Any]]:
    for status, reasons in (("quarantined", outcome.quarantined), ("removed", outcome.removed)):
        for name, reason in reasons.items():
            yield {"id": name, "status": status, "reason": reason}


def _add_findings(
    lines: Sequence[dict[str, Any]], training: Dataset, outcome: Outcome, folder: Path
) -> None:
    """Put scores, reasons, map and preview of each sample into its line."""
    found = outcome.findings
    if found is None:
        return
    known = found.of_samples()
    scores = {name: told["score"] for name, told in known.items() if told["score"] is not None}
    previews = write_previews(training, training.samples, scores, folder / "previews.bin")
    for line in lines:
        line |= known.get(line["id"], {})
        if line["id"] in previews:
            line["preview"] = previews[line["id"]]
    if found.trigger is not None and found.trigger.patch is not None:
        found.trigger.patch.save(folder / "trigger.png")


def _said(sample: Sample) -> dict[str, Any]:
    question = sample.turns[0].text.replace(IMAGE_MARK, "").strip()
    return {"question": question, "original": [turn.text for turn in sample.turns[1::2]]}


def _rewritten_line(sample: Sample, done: Rewritten) -> dict[str, Any]:
    said, purified = _said(sample), done.responses or []
    return {
        "id": sample.id,
        "status": "rewritten",
        "changed": purified != said["original"],
        **said,
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
