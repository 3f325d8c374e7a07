"""The families at the sizes of their public checkpoints, on random weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers.models.diffusion_gemma.configuration_diffusion_gemma import DiffusionGemmaConfig

from benchmarks.shapes import LAVIDA, LLADA_V, Shape
from disp_engine.interfaces import DiffusionModel
from disp_engine.models import diffusion_gemma
from disp_engine.models.diffusion_gemma import DiffusionGemma, GemmaSettings
from disp_engine.models.diffusion_gemma.backbone import Backbone
from disp_engine.models.diffusion_gemma.config import GemmaFolder, Sampling
from disp_engine.models.diffusion_gemma.prompt import Prompter
from disp_engine.models.inspection import Memory
from disp_engine.models.lavida import Lavida
from disp_engine.models.llada_v import LladaV
from disp_engine.models.llava import weights
from disp_engine.models.llava.config import LlavaConfig
from disp_engine.models.llava.memory import memory
from disp_engine.models.llava.model import LlavaModel, Modules


@runtime_checkable
class RandomModel(Protocol):
    """A family's sizes, and a model of them."""

    def of_layers(self, count: int) -> "RandomModel":
        """The same with a language model of fewer layers."""
        ...

    def planned(self) -> Memory:
        """What `disp models inspect` plans for these sizes."""
        ...

    def build(self, tokenizer: Path, device: torch.device) -> DiffusionModel:
        """Draw the weights; no file is read but the tokenizer's."""
        ...


def drawn(name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A tensor of bfloat16: ones for what scales, small draws for the rest.

    At these scales activations stay finite.
    """
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "layer_scalar")):
        return torch.ones(shape, dtype=torch.bfloat16, device=device)
    return torch.randn(shape, dtype=torch.bfloat16, device=device) * 0.02


@dataclass(frozen=True)
class LlavaSizes:
    """A family in LLaVA's layout."""

    family: type[LlavaModel]
    config: LlavaConfig

    def of_layers(self, count: int) -> "LlavaSizes":
        """The same with fewer layers."""
        return replace(self, config=replace(self.config, num_hidden_layers=count))

    def planned(self) -> Memory:
        """As the family's blueprint has it."""
        shapes = weights.shapes(Modules.empty(self.config).named())
        return memory(self.config, shapes, "BF16", self.family.rows_of_a_sample)

    def build(self, tokenizer: Path, device: torch.device) -> DiffusionModel:
        """Draw the weights."""
        shape = Shape(self.family, self.config)
        return shape.build(tokenizer, device, torch.bfloat16).model


@dataclass(frozen=True)
class GemmaSizes:
    """DiffusionGemma."""

    config: Mapping[str, Any]
    soft_tokens: int = 280
    sampling: Sampling = field(default_factory=lambda: Sampling(ends=(1, 50, 106)))

    def of_layers(self, count: int) -> "GemmaSizes":
        """The same with fewer layers; the last one reads the whole prompt."""
        text = {**self.config["text_config"], "num_hidden_layers": count}
        return replace(self, config={**self.config, "text_config": text})

    def planned(self) -> Memory:
        """As the family's blueprint has it."""
        config = DiffusionGemmaConfig(**self.config)
        tensors = diffusion_gemma.shapes(config)
        return diffusion_gemma.memory(config, self.soft_tokens, tensors, "BF16")

    def build(self, tokenizer: Path, device: torch.device) -> DiffusionModel:
        """Draw the weights."""
        config = DiffusionGemmaConfig(**self.config)
        shapes = diffusion_gemma.shapes(config)
        tensors = {name: drawn(name, shape, device) for name, shape in shapes.items()}
        backbone = Backbone.assembled(config, tensors, torch.bfloat16)
        del tensors  # one copy of the weights fits a card, two do not
        backbone.model.to(device)
        folder = GemmaFolder(config, self.sampling, self.soft_tokens)
        prompter = Prompter.from_folder(tokenizer)
        model: DiffusionModel = DiffusionGemma(folder, backbone, prompter, "0", GemmaSettings())
        return model


# `moe_intermediate_size` is not in the facts at hand; with 704 (a third of the shared MLP's width)
# the whole model has the 26 billion parameters of its name.
GEMMA_26B: Mapping[str, Any] = {
    "canvas_length": 256,
    "boi_token_id": 255999,
    "eoi_token_id": 258882,
    "image_token_id": 258880,
    "text_config": {
        "model_type": "diffusion_gemma_text",
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "moe_intermediate_size": 704,
        "num_hidden_layers": 30,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 2,
        "head_dim": 256,
        "global_head_dim": 512,
        "num_experts": 128,
        "top_k_experts": 8,
        "sliding_window": 1024,
        "use_bidirectional_attention": "vision",
        "vocab_size": 262144,
    },
    "vision_config": {
        "model_type": "gemma4_vision",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 72,
        "patch_size": 16,
        "pooling_kernel_size": 3,
    },
}
FAMILIES: Mapping[str, RandomModel] = {
    "llada_v": LlavaSizes(LladaV, LLADA_V),
    "lavida": LlavaSizes(Lavida, LAVIDA),
    "diffusion_gemma": GemmaSizes(GEMMA_26B),
}
