"""Which device each part of a model stands on; several GPUs share a model too large for one.

Accelerate plans the map, layer by layer in their order, and moves what passes from one device to
the next. Tower, projector and newline stay with the embeddings, on the first device.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import get_balanced_memory
from torch import nn

from disp_engine.models.llava.llama import FullAttentionLlama

Budgets = Mapping[int | str, int]
"""Bytes that may be used of each device, by its number or name."""
_WHOLE = "FullAttentionLayer"
"""What is never split: its residual stream would have to go back and forth."""


@dataclass(frozen=True)
class Placement:
    """Devices by the names of the language model's parts; "" is what has no place of its own."""

    devices: Mapping[str, torch.device]

    @classmethod
    def on(cls, device: torch.device | str) -> "Placement":
        """Everything on one device."""
        return cls({"": torch.device(device)})

    @classmethod
    def spread(
        cls, language: FullAttentionLlama, dtype: torch.dtype | None, budgets: Budgets | None = None
    ) -> "Placement":
        """Over all GPUs, or within `budgets`; the host's memory takes what they cannot."""
        fitting = budgets or get_balanced_memory(
            language, no_split_module_classes=[_WHOLE], dtype=dtype
        )
        planned = infer_auto_device_map(
            language, dict(fitting), no_split_module_classes=[_WHOLE], dtype=dtype
        )
        devices = {name: _device(place) for name, place in planned.items()}
        return cls({"": devices.get("", next(iter(devices.values()))), **devices})

    @property
    def first(self) -> torch.device:
        """Where prompts are put together."""
        return self.of("model.embed_tokens.weight")

    def of(self, name: str) -> torch.device:
        """Where a tensor goes, by its name in the checkpoint."""
        part = name.removeprefix("model.")
        held = [key for key in self.devices if not key or f"{part}.".startswith(f"{key}.")]
        return self.devices[max(held, key=len)]

    def settle(self, language: FullAttentionLlama, tower: nn.Module) -> None:
        """Bring what is in no file to its place, and let what passes follow."""
        tower.to(self.first)
        language.rotary_emb.to(self.first)
        parts = {name: place for name, place in self.devices.items() if name}
        if parts:
            dispatch_model(language, parts, main_device=self.first, force_hooks=True)


def _device(place: int | str) -> torch.device:
    """Accelerate numbers GPUs and names all else."""
    return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)
