"""What a prompt that does not see its response leaves in every layer, read once for all steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass
class PromptCache:
    """Rotated keys and values of B prompts by the number of the layer.

    `attended` marks what is not padding. While prompts are read each layer leaves its own;
    afterwards it finds them before what is read then.
    """

    attended: Bool[Tensor, "B P"]
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
        return PromptCache(self.attended[chosen], kept)
