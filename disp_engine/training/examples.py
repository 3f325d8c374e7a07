"""Samples made ready for a model: pictures through the tower once, texts tokenised once."""

from collections.abc import Sequence
from dataclasses import dataclass

from disp_engine.context import RunContext, check
from disp_engine.data.dataset import Dataset
from disp_engine.errors import SampleError
from disp_engine.interfaces import DiffusionModel
from disp_engine.records import Sample, VisualFeatures


class FeatureCache:
    """Tower features of every picture seen so far, by the sha256 of its file."""

    def __init__(self, model: DiffusionModel, context: RunContext) -> None:
        self.model = model
        self.context = context
        self._features: dict[str, VisualFeatures] = {}

    def load(self, dataset: Dataset, names: Sequence[str], batch: int = 64) -> dict[str, str]:
        """Encode the pictures that are not there yet; return those that failed, with reasons."""
        failed: dict[str, str] = {}
        missing = [name for name in dict.fromkeys(names) if name not in self._features]
        for start in range(0, len(missing), batch):
            images = {}
            for name in missing[start : start + batch]:
                try:
                    images[name] = dataset.image(name)
                except SampleError as error:
                    failed[name] = str(error)
            encoded = self.model.encode_images(list(images.values())) if images else []
            self._features.update(zip(images, encoded, strict=True))
            check(self.context)
        return failed

    def of(self, sample: Sample) -> list[VisualFeatures]:
        """Features of a sample's pictures, in order."""
        return [self._features[name] for name in sample.images]


@dataclass(frozen=True)
class Prepared:
    """What can be trained on and rewritten, what has no picture, and what fell out, and why."""

    usable: list[Sample]
    without_images: list[Sample]
    failed: dict[str, str]


def prepare(dataset: Dataset, model: DiffusionModel, cache: FeatureCache) -> Prepared:
    """Encode all pictures and tokenise all texts once; a sample that fails falls out alone."""
    broken = cache.load(dataset, [name for sample in dataset.samples for name in sample.images])
    usable, without, failed = [], [], dict(dataset.refused)
    for sample in dataset.samples:
        if not sample.images:
            without.append(sample)
            continue
        try:
            if reasons := [broken[name] for name in sample.images if name in broken]:
                raise SampleError(reasons[0])
            model.tokenise_example(sample.turns)
            usable.append(sample)
        except SampleError as error:
            failed[sample.id] = str(error)
    return Prepared(usable, without, failed)
