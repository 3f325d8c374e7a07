"""The sizes of the public checkpoints in LLaVA's layout, and models of them drawn on a device."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.reference.llama import Llama
from disp_engine.models.lavida import Lavida
from disp_engine.models.lavida.config import LavidaConfig
from disp_engine.models.llada_v import LladaV
from disp_engine.models.llada_v.config import LladaVConfig
from disp_engine.models.llava import weights
from disp_engine.models.llava.config import LlavaConfig, VisionConfig
from disp_engine.models.llava.model import LlavaModel, Modules
from disp_engine.models.llava.placement import Placement

_LLADA_8B: Mapping[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 126464,
    "mm_patch_merge_type": "spatial_unpad",
}
LLADA_V = LladaVConfig(
    **_LLADA_8B,
    image_aspect_ratio="anyres_max_4",
    image_grid_pinpoints=tuple((384 * i, 384 * j) for i in range(1, 7) for j in range(1, 7)),
)
LAVIDA = LavidaConfig(
    **_LLADA_8B,
    pooled=True,
    rope_full_precision=True,
    image_aspect_ratio="anyres",
    image_grid_pinpoints=((384, 768), (768, 384), (768, 768), (1152, 384), (384, 1152)),
    tokenizer_model_max_length=4096,
)


@dataclass(frozen=True)
class Pair:
    """The engine's model and the reference, over the same tensors."""

    model: LlavaModel
    reference: Llama


@dataclass(frozen=True)
class Shape:
    """A family at some size."""

    family: type[LlavaModel]
    config: LlavaConfig

    def of(self, layers: int | None, *, toy: bool) -> "Shape":
        """The same with fewer layers of the language model, or all of it tiny."""
        config = _tiny(self.config) if toy else self.config
        depth = config.num_hidden_layers if layers is None else layers
        return replace(self, config=replace(config, num_hidden_layers=depth))

    def build(self, tokenizer: Path, device: torch.device, dtype: torch.dtype) -> Pair:
        """Draw the weights on the device; of the tokenizer only its special tokens are used."""
        modules, place = Modules.empty(self.config), Placement.on(device)
        generator = torch.Generator(device).manual_seed(0)
        shapes = weights.shapes(modules.named())
        tensors = {n: drawn(n, shapes[n], generator, dtype) for n in sorted(shapes)}
        for prefix, part in modules.named().items():
            state = {name: tensors[prefix + name] for name in part.state_dict()}
            part.load_state_dict(state, assign=True)
        place.settle(modules.language, modules.tower)
        prompter = self.family.prompter_class.from_folder(tokenizer)
        model = self.family(self.config, prompter, modules, "random")
        return Pair(model, Llama(self.config, tensors))


def drawn(
    name: str, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """Ones for what scales, normal draws for the rest.

    Activations stay finite; queries and keys are so large that attention tells positions apart.
    """
    device = generator.device
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
        return torch.ones(shape, dtype=dtype, device=device)
    scale = 1 / math.sqrt(math.prod(shape[1:]))
    if name.endswith(("q_proj.weight", "k_proj.weight")):
        scale *= _SHARPNESS
    scale = _EMBEDDED if "embed_tokens" in name or len(shape) == 1 else scale
    return torch.randn(shape, dtype=dtype, device=device, generator=generator).mul_(scale)


_EMBEDDED, _SHARPNESS = 0.02, 2.0


def _tower(side: int, width: int) -> VisionConfig:
    return VisionConfig(
        image_size=side,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
    )


def _tiny(config: LlavaConfig) -> LlavaConfig:
    """The same kind of pictures and layers, of sizes at which a CPU takes seconds."""
    vision = _tower(56, 32)
    tile = vision.image_size
    scaled = tuple((w // 384 * tile, h // 384 * tile) for w, h in config.image_grid_pinpoints)
    return replace(
        config,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=1024,
        image_grid_pinpoints=scaled,
        vision=vision,
    )


SHAPES: Mapping[str, Shape] = {
    "llada_v": Shape(LladaV, LLADA_V),
    "lavida": Shape(Lavida, LAVIDA),
}


def toy(family: type[LlavaModel], config: type[LlavaConfig], *, vocabulary: int = 1536) -> Shape:
    """Toy S: 392 visual tokens in two pictures, and a head of the share of LLaDA-V's.

    With the true `vocabulary` it is toy W: for memory, and for what the vocabulary costs.
    """
    vision = _tower(196, 64)
    sizes = config(
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=vocabulary,
        rope_full_precision=family is Lavida,
        vision=vision,
    )
    return Shape(family, sizes)
