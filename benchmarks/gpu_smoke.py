"""One step of each stage at the true sizes of a family, on random weights.

`python -m benchmarks.gpu_smoke --family llada_v --tokenizer DIR` prints, as JSON, the seconds and
the peak memory of each stage beside what `disp models inspect` plans. The answers mean nothing;
what is shown is that the stages fit and run. DIR is any folder with a LLaDA tokenizer.json.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from disp_engine.interfaces import Generation
from disp_engine.models.lavida import Lavida
from disp_engine.models.lavida.config import LavidaConfig
from disp_engine.models.llada_v import LladaV
from disp_engine.models.llada_v.config import LladaVConfig
from disp_engine.models.llava import weights
from disp_engine.models.llava.config import LlavaConfig
from disp_engine.models.llava.memory import memory
from disp_engine.models.llava.model import LlavaModel, Modules
from disp_engine.models.tensors import Checkpoint, Entry
from disp_engine.records import Turn
from disp_engine.saliency.estimator import SaliencySettings, estimate_saliency

LLADA_8B: Mapping[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 126464,
    "mm_patch_merge_type": "spatial_unpad",
}
FAMILIES: Mapping[str, tuple[type[LlavaModel], LlavaConfig]] = {
    "llada_v": (
        LladaV,
        LladaVConfig(
            **LLADA_8B,
            image_aspect_ratio="anyres_max_4",
            image_grid_pinpoints=tuple(
                (384 * i, 384 * j) for i in range(1, 7) for j in range(1, 7)
            ),
        ),
    ),
    "lavida": (
        Lavida,
        LavidaConfig(
            **LLADA_8B,
            pooled=True,
            rope_full_precision=True,
            image_aspect_ratio="anyres",
            image_grid_pinpoints=(
                (384, 768),
                (768, 384),
                (768, 768),
                (1152, 384),
                (384, 1152),
            ),
            tokenizer_model_max_length=4096,
        ),
    ),
}
QUESTION = Turn("human", "<image>\nDescribe the image.")
ANSWER = Turn("gpt", "A red circle at the top left and a blue cross at the bottom right.")


class RandomWeights(Checkpoint):
    """Weights of a scale at which activations stay finite, drawn when they are asked for."""

    def tensor(self, name: str) -> Tensor:
        shape = self.entries[name].shape
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
            return torch.ones(shape, dtype=torch.bfloat16)
        return torch.randn(shape, dtype=torch.bfloat16) * 0.02


@dataclass(frozen=True)
class Step:
    """Seconds and peak bytes of device memory (None on a CPU) of one stage."""

    seconds: float
    peak_bytes: int | None


def build(
    family: type[LlavaModel], config: LlavaConfig, tokenizer: Path, device: torch.device
) -> LlavaModel:
    """A model of random weights; no file is read but the tokenizer's."""
    modules = Modules.empty(config)
    shapes = weights.shapes(modules.named())
    entries = {name: Entry(Path(), name, "BF16", shape, 0, 0) for name, shape in shapes.items()}
    revision = weights.fill(modules.named(), RandomWeights((), entries), (), device, None)
    modules.language.to(device)
    modules.tower.to(device)
    return family(config, family.prompter_class.from_folder(tokenizer), modules, revision)


def smoke(model: LlavaModel, side: int) -> dict[str, Step]:
    """Encode, tune, score and denoise one picture of `side` pixels."""
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
    steps["saliency"], (scored,) = _timed(
        device, lambda: estimate_saliency(model, [prompt], SaliencySettings())
    )
    assert len(scored.scores) == int(prompt.visual().sum())
    steps["denoise"], (ids,) = _timed(
        device, lambda: model.denoise([prompt], Generation(32, 32, 4, stop=()))
    )
    assert len(ids) == 32
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
    parser.add_argument("--layers", type=int, default=32, help="fewer fit a smaller card")
    options = parser.parse_args()
    family, config = FAMILIES[options.family]
    config = replace(config, num_hidden_layers=options.layers)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(family, config, options.tokenizer, device)
    planned = memory(config, weights.shapes(Modules.empty(config).named()), "BF16")
    steps = {name: asdict(step) for name, step in smoke(model, side=768).items()}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(json.dumps({"device": where, "planned": asdict(planned), "steps": steps}, indent=1))


if __name__ == "__main__":
    main()
