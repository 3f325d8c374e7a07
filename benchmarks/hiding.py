"""Compares what may hide a visual token in DiffusionGemma: the same attack, the same seeds.

`python -m benchmarks.hiding --out DIR` poisons the built-in world once and purifies it three times
on the built-in checkpoint, each time with another way of hiding; `--json FILE` writes the rows. Per
way: the attack's success before and after, clean performance, how many clean responses were
rewritten otherwise, and captions that are still exact when a share of all visual tokens is hidden
at random. Finished stages below DIR are found again, so the command can be broken off.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from disp_engine import registry
from disp_engine.attacks.poison import PoisonedSet, build_demo
from disp_engine.builtin.instructions import describe
from disp_engine.builtin.recipe.card import HELD_OUT_SEED
from disp_engine.builtin.world import draw_scene, render
from disp_engine.context import SilentContext
from disp_engine.interfaces import Generation
from disp_engine.metrics.rate import Rate
from disp_engine.models.diffusion_gemma import DiffusionGemma
from disp_engine.models.diffusion_gemma.hiding import Hiding
from disp_engine.records import Turn
from disp_engine.run import run
from disp_engine.saliency.masking import at_random
from disp_engine.spec import RunSpec

BATCH = 50


@dataclass(frozen=True)
class Comparison:
    """One attack on one checkpoint, and the share of visual tokens that DiSP hides."""

    model: Path
    out: Path
    samples: int
    test: int
    mask_ratio: float
    epochs: float | None = None

    def rows(self) -> list[dict[str, Any]]:
        """One row for each way of hiding."""
        data = build_demo(self.out / "data", samples=self.samples, test=self.test)
        return [self._row(hiding, data) for hiding in get_args(Hiding)]

    def _row(self, hiding: Hiding, data: PoisonedSet) -> dict[str, Any]:
        out = self.out / hiding
        told: dict[str, Any] = {"mask_ratio": self.mask_ratio, "epochs": self.epochs}
        run(
            RunSpec(
                model_dir=self.model,
                model_id=self.model.name,
                training_file=data.training,
                work_dir=self.out / "work",
                out_dir=out,
                triggered_file=data.triggered,
                clean_file=data.clean,
                success={"type": "contains_any", "phrases": data.phrases},
                method={"type": "disp", "hyperparameters": told},
                model_options={"hiding": hiding},
            ),
            SilentContext(),
        )
        report = json.loads((out / "report.json").read_text())
        found = {side: report["evaluation"][side] for side in ("before", "after")}
        poisoned = set(json.loads(data.sidecar.read_text())["poisoned"])
        lines = map(json.loads, (out / "samples.jsonl").read_text().splitlines())
        clean = [line for line in lines if line["id"] not in poisoned]
        changed = Rate(sum(bool(line.get("changed")) for line in clean), len(clean))
        hidden = captions_under_hiding(self.model, hiding, self.mask_ratio, self.test)
        told = {"clean_responses_changed": changed.to_json(), "captions": hidden.to_json()}
        return {"hiding": hiding, **found, **told}


@torch.no_grad()
def captions_under_hiding(folder: Path, hiding: Hiding, ratio: float, scenes: int) -> Rate:
    """Exact captions of held-out scenes whose visual tokens are hidden at random."""
    model = registry.load_model(folder, options={"hiding": hiding})
    assert isinstance(model, DiffusionGemma)
    rng, generator = np.random.default_rng(HELD_OUT_SEED), torch.Generator().manual_seed(0)
    right = 0
    for start in range(0, scenes, BATCH):
        drawn = [draw_scene(rng) for _ in range(min(BATCH, scenes - start))]
        tasks = [describe(scene, rng) for scene in drawn]
        prompts = []
        features = model.encode_images([render(scene, rng) for scene in drawn])
        for task, picture in zip(tasks, features, strict=True):
            asked = model.tokenise_prompt([Turn("human", f"<image>\n{task.prompt}")])
            prompt = model.embed(asked, [picture])
            chosen = at_random(int(prompt.visual().sum()), ratio, generator)
            prompts.append(model.hide(prompt, chosen))
        length = model.canvas
        answers = model.denoise(prompts, Generation(length=length, block_length=length))
        said = [model.text(answer).strip() for answer in answers]
        right += sum(a == task.response for a, task in zip(said, tasks, strict=True))
    return Rate(right, scenes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hiding", description=__doc__)
    builtin = registry.BUILTIN / "disp-tiny-diffusion-gemma"
    parser.add_argument("--model", type=Path, default=builtin)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, dest="file")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--mask-ratio", type=float, default=0.3)
    parser.add_argument("--epochs", type=float, help="of the first tuning [the paper's 20]")
    given = parser.parse_args(arguments)
    sizes = (given.samples, given.test, given.mask_ratio, given.epochs)
    rows = Comparison(given.model, given.out, *sizes).rows()
    text = json.dumps(rows, indent=1)
    print(text)
    if given.file:
        given.file.write_text(text)


if __name__ == "__main__":
    main()
