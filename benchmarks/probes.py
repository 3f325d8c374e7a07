"""How far estimated masks are from the exact one, at equal numbers of backward passes.

`python -m benchmarks.probes --json FILE` poisons a dataset of the built-in world, tunes the
built-in checkpoint on it for a short while and scores some of its samples by the exact quadratic
form (Eq. 5, T*K backward passes each). Every way to draw probes is then held against it: what m
backward passes would give follows from the exact changes, so that many draws cost nothing. The
disagreement is 1 - IoU of the masks of Eq. 9, mean over samples and draws.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Bool
from torch import Tensor

from disp_engine import registry
from disp_engine.attacks.poison import build_demo
from disp_engine.context import SilentContext
from disp_engine.data.dataset import read_dataset
from disp_engine.defences.settings import DispSettings
from disp_engine.interfaces import DiffusionModel
from disp_engine.records import Sample
from disp_engine.saliency.exact import Changes, changes
from disp_engine.saliency.masking import most_salient
from disp_engine.saliency.probes import PROBES, Estimator
from disp_engine.stages import StageFolder
from disp_engine.training.examples import FeatureCache, prepare
from disp_engine.training.projector import tune_samples

MODEL = registry.BUILTIN / "disp-tiny-llada-v"
BAR = 0.8
"""The largest share of the Gaussian probes' disagreement that the default may have."""


@dataclass(frozen=True)
class Disagreement:
    """Mean 1 - IoU of a way to draw probes, and its share of the Gaussian probes'."""

    estimator: Estimator
    probes: int
    ratio: float
    disagreement: float
    of_gaussian: float


def exact_scores(samples: int, steps: int, seed: int) -> tuple[list[Changes], DispSettings]:
    """Poison, tune for `steps` steps, and score `samples` samples exactly."""
    settings = DispSettings.resolve(registry.card_defaults(MODEL), {}, {})
    model = registry.load_model(MODEL, device="cpu")
    with TemporaryDirectory() as folder:
        root = Path(folder)
        drawn = max(samples, 10 * settings.batch_size)
        data = build_demo(root / "data", samples=drawn, test=1, seed=seed)
        cache = FeatureCache(model, root / "stages", SilentContext())
        prepared = prepare(read_dataset(data.training, root / "pool"), model, cache)
        tuning = settings.fine_tuning()
        tuning = replace(tuning, epochs=steps * tuning.batch_size / len(prepared.usable))
        stage = StageFolder(root / "tuning")
        tune_samples(model, prepared.usable, cache, tuning, seed, stage, SilentContext())
        rows = [_changes(model, s, cache, settings, seed) for s in prepared.usable[:samples]]
    return rows, settings


def _changes(
    model: DiffusionModel, sample: Sample, cache: FeatureCache, settings: DispSettings, seed: int
) -> Changes:
    first, how = sample.turns[:1], settings.saliency(settings.generation([]), seed)
    with torch.no_grad():
        prompt = model.embed(model.tokenise_prompt(first), cache.of(sample, first))
    return changes(model, prompt, how)


def disagreements(
    rows: Sequence[Changes], probes: int, ratios: Sequence[float], draws: int
) -> list[Disagreement]:
    """Of every estimator, at every ratio."""
    means: Mapping[Estimator, list[float]] = {
        name: _means(rows, name, probes, ratios, draws) for name in PROBES
    }
    return [
        Disagreement(name, probes, ratio, found, found / gaussian if gaussian else 1.0)
        for name, each in means.items()
        for ratio, found, gaussian in zip(ratios, each, means["gaussian"], strict=True)
    ]


def _means(
    rows: Sequence[Changes], name: Estimator, probes: int, ratios: Sequence[float], draws: int
) -> list[float]:
    found = []
    for row in rows:
        exact = [most_salient(row.exact(), ratio) for ratio in ratios]
        for seed in range(draws):
            generator = torch.Generator().manual_seed(seed)
            scores = row.saliency(PROBES[name](row.p[None], probes, generator)[:, 0])
            masks = [most_salient(scores, ratio) for ratio in ratios]
            found.append([1 - overlap(*pair) for pair in zip(masks, exact, strict=True)])
    return torch.tensor(found, dtype=torch.float64).mean(0).tolist()


def overlap(one: Bool[Tensor, " Lv"], other: Bool[Tensor, " Lv"]) -> float:
    """Intersection over union; two empty masks are the same."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; status 1 if the default estimator misses the bar at the card's ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probes", description=__doc__)
    parser.add_argument("--json", type=Path, dest="file")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rows, settings = exact_scores(options.samples, options.steps, options.seed)
    ratios = sorted({settings.mask_ratio, 0.1, 0.3, 0.5})
    found = disagreements(rows, settings.probes, ratios, options.draws)
    for one in found:
        print(
            f"{one.estimator:10} m = {one.probes}  ratio {one.ratio:<4}  "
            f"disagreement {one.disagreement:.3f}  {one.of_gaussian:.2f} of gaussian"
        )
    if options.file:
        options.file.write_text(json.dumps([asdict(one) for one in found], indent=1))
    chosen = {one.ratio: one.of_gaussian for one in found if one.estimator == settings.estimator}
    return int(chosen[settings.mask_ratio] > BAR)


if __name__ == "__main__":
    raise SystemExit(main())
