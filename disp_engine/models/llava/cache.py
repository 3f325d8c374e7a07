"""What was read leaves in every layer: once for all steps where a prompt does not see its response,
once for a block where it does, which is then an approximation (Fast-dLLM, arXiv 2505.22618)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass
class PromptCache:
    """Rotated keys and values of B prompts by the number of the layer.

    `attended` marks what is not padding; what is read later stands at the places from `following`
    on. While prompts are read each layer leaves its own; afterwards it finds them before what is
    read then.
    """

    attended: Bool[Tensor, "B P"]
    following: Int[Tensor, " B"]
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Columns of what was read; none while it is being read."""
        return self.attended.shape[1] if self.layers else 0

    def along(
        self, layer: int, key: Float[Tensor, "B L H E"], value: Float[Tensor, "B L H E"]
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of all that the layer's queries see."""
        if layer not in self.layers:
            self.layers[layer] = key, value
            return key, value
        read, said = self.layers[layer]
        return torch.cat([read, key], dim=1), torch.cat([said, value], dim=1)

    def of(self, prompts: Sequence[int]) -> "PromptCache":
        """The cache of some of the prompts."""
        chosen = torch.tensor(prompts, device=self.attended.device)
        kept = {
            layer: (key[chosen.to(key.device)], value[chosen.to(value.device)])
            for layer, (key, value) in self.layers.items()
        }
        return PromptCache(self.attended[chosen], self.following[chosen], kept)

    def without(self, again: Bool[Tensor, "B P"], following: Int[Tensor, " B"]) -> "PromptCache":
        """The cache less the marked places, which are read again from `following` on."""
        attended = self.attended & ~again
        seen = attended.any(dim=0)
        kept = {
            layer: (key[:, seen.to(key.device)], value[:, seen.to(value.device)])
            for layer, (key, value) in self.layers.items()
        }
        return PromptCache(attended[:, seen], following, kept)
