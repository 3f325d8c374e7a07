"""The families at the sizes of their public checkpoints, on random weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers.models.diffusion_gemma.configuration_diffusion_gemma import DiffusionGemmaConfig

from benchmarks.shapes import LAVIDA, LLADA_V
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
from disp_engine.models.llava.placement import Placement
from disp_engine.models.tensors import Checkpoint, Entry


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


class RandomWeights(Checkpoint):
    """Weights of a scale at which activations stay finite, drawn when they are asked for."""

    def tensor(self, name: str) -> Tensor:
        return drawn(name, self.entries[name].shape)


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of bfloat16: ones for what scales, small draws for the rest."""
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "layer_scalar")):
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.randn(shape, dtype=torch.bfloat16) * 0.02


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
        return memory(self.config, weights.shapes(Modules.empty(self.config).named()), "BF16")

    def build(self, tokenizer: Path, device: torch.device) -> DiffusionModel:
        """Draw the weights."""
        modules = Modules.empty(self.config)
        shapes = weights.shapes(modules.named())
        entries = {name: Entry(Path(), name, "BF16", shape, 0, 0) for name, shape in shapes.items()}
        place = Placement.on(device)
        drawn_here = RandomWeights((), entries)
        revision = weights.fill(modules.named(), drawn_here, (), place.of, None)
        place.settle(modules.language, modules.tower)
        prompter = self.family.prompter_class.from_folder(tokenizer)
        model: DiffusionModel = self.family(self.config, prompter, modules, revision)
        return model


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
        tensors = {n: drawn(n, shape) for n, shape in diffusion_gemma.shapes(config).items()}
        backbone = Backbone.assembled(config, tensors, torch.bfloat16)
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
