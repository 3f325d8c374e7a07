"""Samples made ready for a model: pictures through the tower once, texts tokenised once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from disp_engine.context import RunContext, check
from disp_engine.data.dataset import IMAGE_MARK, Dataset
from disp_engine.errors import SampleError
from disp_engine.interfaces import VisualModel
from disp_engine.records import Sample, Turn, VisualFeatures
from disp_engine.stages import Stage


class FeatureCache:
    """Tower features of pictures by the sha256 of their files, kept on disk below `root`.

    They are read each time that they are asked for: a dataset's do not fit into memory.
    """

    def __init__(self, model: VisualModel, root: Path, context: RunContext) -> None:
        self.model = model
        self.context = context
        self._stage = Stage(root, "features", {"model": model.revision})

    def load(self, dataset: Dataset, names: Sequence[str], batch: int = 64) -> dict[str, str]:
        """Encode the pictures that are not there yet; return those that failed, with reasons."""
        failed: dict[str, str] = {}
        missing = [name for name in dict.fromkeys(names) if not self._stage.has(name)]
        for start in range(0, len(missing), batch):
            images = {}
            for name in missing[start : start + batch]:
                try:
                    images[name] = dataset.image(name)
                except SampleError as error:
                    failed[name] = str(error)
            encoded = self.model.encode_images(list(images.values())) if images else []
            for name, features in zip(images, encoded, strict=True):
                self._keep(name, features)
            self.context.progress(min(start + batch, len(missing)), len(missing), "pictures")
            check(self.context)
        return failed

    def of(self, sample: Sample, turns: Sequence[Turn]) -> list[VisualFeatures]:
        """Features of the pictures that the first `turns` of a sample show, in order."""
        shown = sum(turn.text.count(IMAGE_MARK) for turn in turns if turn.role == "human")
        return [self._read(name) for name in sample.images[:shown]]

    def _keep(self, name: str, features: VisualFeatures) -> None:
        size = torch.tensor(features.size)
        self._stage.write_tensors(name, {"tiles": features.tiles, "size": size})

    def _read(self, name: str) -> VisualFeatures:
        tensors = self._stage.read_tensors(name)
        width, height = tensors["size"].tolist()
        return VisualFeatures(tensors["tiles"], (width, height))


@dataclass(frozen=True)
class Prepared:
    """What can be trained on and rewritten, what has no picture, and what fell out, and why."""

    usable: list[Sample]
    without_images: list[Sample]
    failed: dict[str, str]


def prepare(dataset: Dataset, model: VisualModel, cache: FeatureCache) -> Prepared:
    """Encode all pictures and try all texts once; a sample that fails falls out alone."""
    broken = cache.load(dataset, [name for sample in dataset.samples for name in sample.images])
    usable, without, failed = [], [], dict(dataset.refused)
    for sample in dataset.samples:
        if not sample.images:
            without.append(sample)
            continue
        try:
            if reasons := [broken[name] for name in sample.images if name in broken]:
                raise SampleError(reasons[0])
            _try(sample, model, cache)
            usable.append(sample)
        except SampleError as error:
            failed[sample.id] = str(error)
    return Prepared(usable, without, failed)


@torch.no_grad()
def _try(sample: Sample, model: VisualModel, cache: FeatureCache) -> None:
    """Raise SampleError if the sample cannot be trained on or its first prompt not be asked."""
    model.embed(model.tokenise_example(sample.turns), cache.of(sample, sample.turns))
    first = sample.turns[:1]
    model.embed(model.tokenise_prompt(first), cache.of(sample, first))
