"""How well detection found what was poisoned."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from disp_engine.attacks.interfaces import PatchTrigger, Trigger
from disp_engine.detection.findings import Findings
from disp_engine.detection.trigger import Box
from disp_engine.interfaces import PlacingModel, VisualModel
from disp_engine.metrics.auroc import auroc
from disp_engine.metrics.filtering import filter_quality
from disp_engine.training.examples import FeatureCache

TOUCHED = 0.24
"""Share of a token's part of the picture that a box must cover; a centred patch has a quarter."""


def detection_quality(
    findings: Findings, poisoned: Collection[str], recovered: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the report says, with AUROC of all detectors (`areas`) and the quality of the flags."""
    verdict, samples = findings.verdict, findings.samples
    bad = np.array([sample.id in poisoned for sample in samples])
    marks = zip(samples, verdict.flagged.tolist(), strict=True)
    flagged = [sample.id for sample, marked in marks if marked]
    return findings.to_json() | {
        "auroc": auroc(verdict.scores, bad),
        "areas": {name: auroc(values, bad) for name, values in verdict.deviations.items()},
        "flags": filter_quality(flagged, poisoned).to_json(),
        "recovered": recovered,
    }


def location_iou(
    model: VisualModel, cache: FeatureCache, findings: Findings, trigger: Trigger | None
) -> float | None:
    """Intersection over union, in visual tokens, of the place that was found and the true one.

    Of several true places the best counts. None for a trigger without a place of its own, or a
    model that does not know where its tokens look; nought where no place was found.
    """
    features = next((f for s in findings.samples if (f := cache.of(s, s.turns[:1]))), None)
    if not isinstance(trigger, PatchTrigger) or not isinstance(model, PlacingModel) or not features:
        return None
    size = features[0].size
    boxes, others = (trigger.boxes(size, np.random.default_rng(seed)) for seed in (0, 1))
    if list(boxes) != list(others):
        return None
    if findings.trigger is None or findings.trigger.box is None:
        return 0.0
    places = model.places(features[0])
    found = touched(findings.trigger.box, places)
    return max(_iou(found, touched(shares_of(box, size), places)) for box in boxes)


def shares_of(box: tuple[int, int, int, int], size: tuple[int, int]) -> Box:
    """A box in pixels as shares of the picture's width and height."""
    (left, upper, right, lower), (width, height) = box, size
    return left / width, upper / height, right / width, lower / height


def touched(box: Box, places: Float[Tensor, "T 4"]) -> Bool[Tensor, " T"]:
    """The tokens of whose part of the picture a box covers at least TOUCHED."""
    low, high = torch.tensor(box[:2]), torch.tensor(box[2:])
    sides = (torch.minimum(places[:, 2:], high) - torch.maximum(places[:, :2], low)).clamp(min=0)
    whole = (places[:, 2:] - places[:, :2]).prod(dim=1)
    return sides.prod(dim=1) >= TOUCHED * whole  # of no part: nan, which is not


def _iou(first: Bool[Tensor, " T"], second: Bool[Tensor, " T"]) -> float:
    either = int((first | second).sum())
    return int((first & second).sum()) / either if either else 0.0
