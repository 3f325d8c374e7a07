"""CleanSight's calibration within a run: on the request's clean set, kept as a stage."""

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from disp_engine.data.dataset import Dataset
from disp_engine.defences.defence import Defence
from disp_engine.errors import InvalidRequestError, SampleError
from disp_engine.guards.cleansight import Calibration, CalibrationSettings, CleanSight, calibrate
from disp_engine.guards.guard import Question
from disp_engine.interfaces import AutoregressiveModel
from disp_engine.metrics.guarding import question_of
from disp_engine.training.order import generator_for

FILE = "calibration.json"
STREAM = 202


def divided(clean: Dataset | None, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """A random `share` of a clean set to learn from, and the rest to measure on."""
    if clean is None:
        raise InvalidRequestError(
            "method: cleansight learns from clean questions; give evaluation.clean_file."
        )
    count = round(share * len(clean.samples))
    order = torch.randperm(len(clean.samples), generator=generator_for(seed, 0, STREAM)).tolist()
    learnt = set(order[:count])
    first = [sample for number, sample in enumerate(clean.samples) if number in learnt]
    rest = [sample for number, sample in enumerate(clean.samples) if number not in learnt]
    return replace(clean, samples=first, refused={}), replace(clean, samples=rest)


def calibrated(
    defence: Defence[Any], model: AutoregressiveModel, clean: Dataset, settings: CalibrationSettings
) -> tuple[CleanSight, Path]:
    """The guard of the model as it now is, and where its calibration lies."""
    inputs = defence.inputs(clean=clean.sha256, settings=asdict(settings))
    with defence.stage("detect", inputs, kind="calibrate") as stage:
        path = stage.folder / FILE
        if not stage.complete:
            calibrate(model, _questions(clean), settings, defence.settings.micro_batch).save(path)
            stage.finish()
    return CleanSight(model, Calibration.load(path)), path


def _questions(clean: Dataset) -> list[Question]:
    """Those that can be asked; an item without a readable picture teaches nothing."""
    found = []
    for sample in clean.samples:
        with suppress(SampleError):
            found.append(question_of(sample, clean))
    return found
