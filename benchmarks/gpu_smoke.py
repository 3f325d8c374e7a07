"""One step of each stage at the true sizes of a family, on random weights.

`python -m benchmarks.gpu_smoke --family llada_v --tokenizer DIR` prints, as JSON, the seconds and
the peak memory of each stage beside what `disp models inspect` plans. The answers mean nothing;
what is shown is that the stages fit and run. DIR is any folder with a tokenizer.json that has the
family's special tokens.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.random_models import FAMILIES
from disp_engine.interfaces import DiffusionModel, Generation
from disp_engine.records import Turn
from disp_engine.saliency.estimator import SaliencySettings, estimate_saliency

QUESTION = Turn("human", "<image>\nDescribe the image.")
ANSWER = Turn("gpt", "A red circle at the top left and a blue cross at the bottom right.")


@dataclass(frozen=True)
class Step:
    """Seconds and peak bytes of device memory (None on a CPU) of one stage."""

    seconds: float
    peak_bytes: int | None


def smoke(model: DiffusionModel, side: int) -> dict[str, Step]:
    """Encode, tune, score and denoise one picture of `side` pixels."""
    block = getattr(model, "canvas", 32)
    scored = SaliencySettings(rows=min(32, block), length=block)
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    picture, device = Image.fromarray(pixels), model.device
    steps: dict[str, Step] = {}
    steps["encode"], features = _timed(device, lambda: model.encode_images([picture]))
    prompt = model.embed(model.tokenise_prompt([QUESTION]), features)
    example = model.tokenise_example([QUESTION, ANSWER])

    def tune() -> Tensor:
        loss = model.noised_loss([model.embed(example, features)], torch.Generator().manual_seed(0))
        loss.backward()
        torch.optim.AdamW(model.projector.parameters(), lr=1e-5).step()
        return loss.detach()

    steps["tune"], loss = _timed(device, tune)
    assert loss.isfinite()
    steps["saliency"], (found,) = _timed(device, lambda: estimate_saliency(model, [prompt], scored))
    assert len(found.scores) == int(prompt.visual().sum())
    steps["denoise"], (ids,) = _timed(
        device, lambda: model.denoise([prompt], Generation(block, block, 4, stop=()))
    )
    assert len(ids) <= block
    return steps


def _timed(device: torch.device, act: Callable[[], Any]) -> tuple[Step, Any]:
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    start = time.monotonic()
    result = act()
    if cuda:
        torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) if cuda else None
    return Step(time.monotonic() - start, peak), result


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_smoke", description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--layers", type=int, help="fewer than there are, for a smaller card")
    options = parser.parse_args()
    random = FAMILIES[options.family]
    random = random.of_layers(options.layers) if options.layers else random
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, planned = random.build(options.tokenizer, device), random.planned()
    steps = {name: asdict(step) for name, step in smoke(model, side=768).items()}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(json.dumps({"device": where, "planned": asdict(planned), "steps": steps}, indent=1))


if __name__ == "__main__":
    main()
