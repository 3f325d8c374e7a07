"""LoRA (Hu et al., ICLR 2022): adapters beside the language model's linear layers, by peft.

So PurMM's authors tune the models that they attack: rank 32, alpha 64, adapters at a rate of 2e-4
and the projector with them at 2e-5 (LLaVA-1.5). Which layers they adapt and whether with dropout is
not told: here all linear layers of all blocks, without. The adapters are in the model for as long
as the context lasts; its own weights are never changed. They are kept as a tuning's state is.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import AdaptableModel

ADAPTER = "default"
"""peft's own name for a model's only adapter."""


@dataclass(frozen=True)
class LoraSettings:
    """Rank and alpha of the adapters, and the rate at which they learn."""

    rank: int = 32
    alpha: int = 64
    learning_rate: float = 2e-4

    @classmethod
    def of_card(cls, defaults: Mapping[str, Any]) -> "LoraSettings":
        """With the rate that a checkpoint's card tells, where it does."""
        return cls(learning_rate=defaults.get("lora_learning_rate", cls.learning_rate))


class Adapted(nn.Module):
    """What LoRA trains of a model: its projector, and the adapters at a rate of their own."""

    def __init__(
        self, projector: nn.Module, adapters: Mapping[str, nn.Parameter], settings: LoraSettings
    ) -> None:
        super().__init__()
        self.settings = settings
        self.projector = projector
        self.adapters = nn.ParameterDict({n.replace(".", "/"): p for n, p in adapters.items()})


@contextmanager
def adapted(model: AdaptableModel, settings: LoraSettings, seed: int) -> Iterator[Adapted]:
    """Put adapters that change nothing yet into a model, and take them out again."""
    config_kind, tuner_kind = _library()
    language = model.language
    config = config_kind(
        r=settings.rank, lora_alpha=settings.alpha, target_modules=_linear_layers(language)
    )
    with torch.random.fork_rng(devices=[]):  # peft draws its own beginning
        tuner = tuner_kind(language, config, ADAPTER)
    try:
        adapters = {n: p for n, p in language.named_parameters() if f".{ADAPTER}." in n}
        _begin(adapters, seed)
        yield Adapted(model.projector, adapters, settings)
    finally:
        tuner.unload()


def _linear_layers(language: nn.Module) -> list[str]:
    """Names of the blocks' linear layers; the head is none of them."""
    return [
        name
        for name, module in language.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("layers.")
    ]


def _begin(adapters: Mapping[str, nn.Parameter], seed: int) -> None:
    """Peft's own beginning, by a draw of ours: A uniform, B zero.

    In float32, for small updates would vanish in bf16.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapters.items():
        begun = torch.zeros(parameter.shape)
        if "lora_A" in name:
            nn.init.kaiming_uniform_(begun, a=math.sqrt(5), generator=generator)
        parameter.data = begun.to(parameter.device)


def _library() -> tuple[Any, Any]:
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise InvalidRequestError(
            "lora: peft is not installed; install the extra `disp[bench]`."
        ) from error
    return LoraConfig, LoraModel
