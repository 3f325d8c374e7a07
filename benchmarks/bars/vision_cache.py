"""Bar 6: each different tile goes through the tower once, however many epochs follow."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from benchmarks.bench import TOKENIZER, Bench, Comparison
from benchmarks.lines import Line
from disp_engine import registry
from disp_engine.attacks.poison import build_demo
from disp_engine.context import SilentContext
from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.models.llava.images import tiles_of
from disp_engine.models.llava.model import LlavaModel
from disp_engine.records import Sample
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache, prepare
from disp_engine.training.order import batch_indices, generator_for
from disp_engine.training.projector import restore, snapshot, tune_samples
from disp_engine.training.settings import FineTuning

SAMPLES, EPOCHS, BATCH, MOST = 32, 20, 8, 1.03
SETTINGS = FineTuning(epochs=EPOCHS, batch_size=BATCH, micro_batch=BATCH)


@dataclass
class Count:
    """Tiles that the tower was given and pictures that were decoded."""

    tiles: int = 0
    pictures: int = 0


def measure(bench: Bench) -> list[Line]:
    """Count the first epoch's calls and all later ones', then time tuning against bare steps."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = build_demo(folder / "data", samples=SAMPLES, test=1).training
        data = read_dataset(archive, folder / "pool")
        model = registry.load_model(TOKENIZER)
        assert isinstance(model, LlavaModel)
        cache = FeatureCache(model, folder / "work", SilentContext())
        with counted(model.tower) as first:
            samples = prepare(data, model, cache).usable
        job = Job(model, cache, samples, folder)
        with counted(model.tower) as later:
            job.tune(0)
            prepare(data, model, FeatureCache(model, folder / "work", SilentContext()))
        different = different_tiles(data, model)
        found = bench.compare({"tuning": job.tune, "bare": job.bare})
    return [counts(first, different, later), overhead(found)]


def counts(first: Count, different: int, later: Count) -> Line:
    """Judge what was counted."""
    again = later.tiles + later.pictures
    detail = {"tiles": first.tiles, "different_tiles": different, "pictures": first.pictures}
    told = detail | {"later_tiles": later.tiles, "later_pictures": later.pictures}
    return Line(
        "6 calls after the first epoch", again, 0, again == 0 and first.tiles == different, told
    )


def overhead(found: Comparison) -> Line:
    """Judge tuning against its steps alone."""
    value = found.ratio("tuning", "bare")
    return found.line("6 epochs over bare steps", value, MOST, at_most=True, epochs=EPOCHS)


@dataclass
class Job:
    """The tuning of a projector, by the engine and as its steps alone."""

    model: LlavaModel
    cache: FeatureCache
    samples: Sequence[Sample]
    folder: Path
    runs: int = 0

    def tune(self, _: int) -> None:
        """From the same projector each time, in a stage of its own."""
        before = snapshot(self.model)
        self.runs += 1
        stage = Stage(self.folder / "stages", "tune", {"run": self.runs})
        given = (SETTINGS, 0, stage, SilentContext())
        tune_samples(self.model, self.samples, self.cache, *given)
        restore(self.model, before)

    def bare(self, _: int) -> None:
        """The same batches, noise and updates, and nothing else."""
        before = snapshot(self.model)
        tokens = [self.model.tokenise_example(sample.turns) for sample in self.samples]
        features = [self.cache.of(sample, sample.turns) for sample in self.samples]
        parameters = list(self.model.projector.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
        for step in range(SETTINGS.steps(len(self.samples))):
            chosen = batch_indices(step, len(self.samples), BATCH, 0).tolist()
            batch = [self.model.embed(tokens[i], features[i]) for i in chosen]
            optimizer.zero_grad()
            self.model.noised_loss(batch, generator_for(0, step, stream=1)).backward()
            nn.utils.clip_grad_norm_(parameters, SETTINGS.max_grad_norm)
            optimizer.step()
        restore(self.model, before)


@contextmanager
def counted(tower: nn.Module) -> Iterator[Count]:
    """Count what goes through the tower and what is decoded meanwhile."""
    count, decode = Count(), Dataset.image

    def saw(_: nn.Module, given: tuple[Any, ...]) -> None:
        count.tiles += len(given[0])

    def image(self: Dataset, sha256: str) -> Any:
        count.pictures += 1
        return decode(self, sha256)

    hook = tower.register_forward_pre_hook(saw)
    try:
        with mock.patch.object(Dataset, "image", image):
            yield count
    finally:
        hook.remove()


def different_tiles(data: Dataset, model: LlavaModel) -> int:
    """Tiles of all pictures, those that are the same counted once."""
    names = {name for sample in data.samples for name in sample.images}
    tiles = {t.numpy().tobytes() for n in names for t in tiles_of(data.image(n), model.config)}
    return len(tiles)
