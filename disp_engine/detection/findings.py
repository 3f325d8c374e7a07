"""All that detection tells of a dataset: verdict, trigger, target, and a map for each sample."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from disp_engine.data.dataset import IMAGE_MARK, Dataset
from disp_engine.detection.heat import heat_map
from disp_engine.detection.target import InferredTarget, infer_target, telling_phrases
from disp_engine.detection.trigger import (
    FEWEST,
    MOST_PICTURES,
    RecoveredTrigger,
    bounds,
    recover_pattern,
    salient_region,
)
from disp_engine.detection.verdict import Verdict
from disp_engine.errors import SampleError
from disp_engine.interfaces import DiffusionModel, PlacingModel
from disp_engine.records import Sample
from disp_engine.saliency.estimator import Saliency
from disp_engine.training.examples import FeatureCache

Map = Float[np.ndarray, "H W"]


@dataclass(frozen=True)
class Findings:
    """The verdict speaks of `samples` in their order; target and trigger are of flagged ones."""

    samples: Sequence[Sample]
    verdict: Verdict
    maps: Mapping[str, Map] = field(default_factory=dict)
    target: InferredTarget | None = None
    trigger: RecoveredTrigger | None = None

    def to_json(self) -> dict[str, Any]:
        """The findings as the report holds them."""
        target = self.target.to_json() if self.target else None
        trigger = self.trigger.to_json() if self.trigger else None
        return self.verdict.to_json() | {"target": target, "trigger": trigger}

    def of_samples(self) -> dict[str, dict[str, Any]]:
        """What there is to say of each sample, by its id."""
        return {s.id: self._of(number, s) for number, s in enumerate(self.samples)}

    def _of(self, number: int, sample: Sample) -> dict[str, Any]:
        score = float(self.verdict.scores[number])
        found: dict[str, Any] = {
            "score": round(score, 3) if np.isfinite(score) else None,
            "flagged": bool(self.verdict.flagged[number]),
            "reasons": self.verdict.reasons(number),
        }
        heat = self.maps.get(sample.id)
        return found if heat is None else found | {"heat": levels(heat)}


def levels(heat: Map) -> list[str]:
    """A map as rows of hexadecimal digits, the hottest cell f."""
    top = float(heat.max()) or 1.0
    return ["".join(f"{round(15 * cell / top):x}" for cell in row) for row in heat.tolist()]


def heat_maps(
    model: DiffusionModel,
    cache: FeatureCache,
    samples: Sequence[Sample],
    saliency: Iterable[Saliency],
) -> dict[str, Map]:
    """Each sample's map over its first picture; none for models that do not place their tokens."""
    if not isinstance(model, PlacingModel):
        return {}
    found = {}
    for sample, scored in zip(samples, saliency, strict=True):
        features = cache.of(sample, sample.turns[:1])
        if features:
            boxes = model.places(features[0])
            found[sample.id] = heat_map(scored.scores[: len(boxes)], boxes)
    return found


def investigate(found: Findings, dataset: Dataset) -> Findings:
    """Add target and trigger, if samples are flagged."""
    marked = found.verdict.flagged.tolist()
    flagged = [s for s, bad in zip(found.samples, marked, strict=True) if bad]
    others = [s for s, bad in zip(found.samples, marked, strict=True) if not bad]
    if not flagged:
        return found
    target = infer_target(_responses(flagged), _responses(others))
    return replace(found, target=target, trigger=_trigger(found.maps, dataset, flagged, others))


def _trigger(
    maps: Mapping[str, Map], dataset: Dataset, flagged: Sequence[Sample], others: Sequence[Sample]
) -> RecoveredTrigger:
    words = tuple(telling_phrases(_questions(flagged), _questions(others)))
    here, there = ([maps[s.id] for s in part if s.id in maps] for part in (flagged, others))
    if min(len(here), len(there)) < FEWEST:
        return RecoveredTrigger("text" if words else "unknown", words=words)
    region = salient_region(np.stack(here), np.stack(there))
    if region is None:
        return RecoveredTrigger("text" if words else "global", words=words)
    pictures = (_pictures(dataset, part) for part in (flagged, others))
    pattern = recover_pattern(bounds(region), *pictures)
    if pattern is None:
        return RecoveredTrigger("local", bounds(region), words=words)
    return RecoveredTrigger("local", *pattern, words=words)


def _pictures(dataset: Dataset, samples: Sequence[Sample]) -> list[Image.Image]:
    found: list[Image.Image] = []
    for sample in samples:
        if sample.images and len(found) < MOST_PICTURES:
            try:
                found.append(dataset.image(sample.images[0]))
            except SampleError:  # it has no picture to compare; the others have
                continue
    return found


def _responses(samples: Sequence[Sample]) -> list[str]:
    return [sample.turns[1].text for sample in samples]


def _questions(samples: Sequence[Sample]) -> list[str]:
    return [sample.turns[0].text.replace(IMAGE_MARK, " ") for sample in samples]
