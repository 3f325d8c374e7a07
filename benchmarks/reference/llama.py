"""LLaDA in plain operations over a checkpoint's tensors: eager, without a causal mask."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from disp_engine.models.llava.config import LlavaConfig

Rotation = tuple[Float[Tensor, "L E"], Float[Tensor, "L E"]]


@dataclass(frozen=True)
class Llama:
    """The language model by its tensors' names in the checkpoint, as its released code runs it.

    `checkpointed` keeps only each layer's input for the way back, as official training does.
    """

    config: LlavaConfig
    tensors: Mapping[str, Tensor]
    checkpointed: bool = False

    def embedded(self, ids: Tensor) -> Float[Tensor, "*L D"]:
        """Embeddings of token ids."""
        return functional.embedding(ids, self.tensors["model.embed_tokens.weight"])

    def logits(
        self, embeddings: Float[Tensor, "B L D"], seen: Bool[Tensor, "L L"] | None = None
    ) -> Float[Tensor, "B L V"]:
        """Logits of every row; `seen` marks pairs of query and key, None all of them."""
        rotation, hidden = self._rotation(embeddings), embeddings
        for number in range(self.config.num_hidden_layers):
            if self.checkpointed and torch.is_grad_enabled():
                hidden = checkpoint(
                    self._layer, number, hidden, rotation, seen, use_reentrant=False
                )
            else:
                hidden = self._layer(number, hidden, rotation, seen)
        hidden = self._norm(hidden, "model.norm.weight")
        return functional.linear(hidden, self.tensors["lm_head.weight"])

    @contextmanager
    def unfrozen(self) -> Iterator[None]:
        """Ask for the gradients of all weights meanwhile, as code that freezes nothing does."""
        weights = [self.tensors[name] for name in self._names()]
        for weight in weights:
            weight.requires_grad_(True)
        try:
            yield
        finally:
            for weight in weights:
                weight.requires_grad_(False)
                weight.grad = None

    def _names(self) -> list[str]:
        own = ("model.layers.", "model.norm.", "lm_head.")
        return [name for name in self.tensors if name.startswith(own)]

    def _layer(
        self,
        number: int,
        x: Float[Tensor, "B L D"],
        rotation: Rotation,
        seen: Bool[Tensor, "L L"] | None,
    ) -> Tensor:
        name = f"model.layers.{number}."
        normed = self._norm(x, f"{name}input_layernorm.weight")
        x = x + self._attention(normed, name, rotation, seen)
        return x + self._mlp(self._norm(x, f"{name}post_attention_layernorm.weight"), name)

    def _attention(
        self,
        x: Float[Tensor, "B L D"],
        name: str,
        rotation: Rotation,
        seen: Bool[Tensor, "L L"] | None,
    ) -> Tensor:
        q, k, v = (
            self._linear(x, f"{name}self_attn.{part}_proj")
            .unflatten(-1, (heads, self._head_width))
            .transpose(1, 2)
            for part, heads in (("q", self._heads), ("k", self._groups), ("v", self._groups))
        )
        q, k = _rotate(q, rotation).to(v.dtype), _rotate(k, rotation).to(v.dtype)
        if self._groups < self._heads:
            k, v = (y.repeat_interleave(self._heads // self._groups, dim=1) for y in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self._linear(mixed.transpose(1, 2).flatten(2), f"{name}self_attn.o_proj")

    def _mlp(self, x: Float[Tensor, "B L D"], name: str) -> Tensor:
        gate = functional.silu(self._linear(x, f"{name}mlp.gate_proj"))
        return self._linear(gate * self._linear(x, f"{name}mlp.up_proj"), f"{name}mlp.down_proj")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.tensors[f"{name}.weight"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return self.tensors[name] * wide.to(x.dtype)

    @property
    def _heads(self) -> int:
        return self.config.num_attention_heads

    @property
    def _groups(self) -> int:
        return self.config.num_key_value_heads

    @property
    def _head_width(self) -> int:
        return self.config.hidden_size // self._heads

    def _rotation(self, x: Float[Tensor, "B L D"]) -> Rotation:
        """Cosines and sines of each position, in float32 where the family rotates so."""
        frequencies = _frequencies(self._head_width, self.config.rope_theta, x.device)
        angles = torch.outer(torch.arange(x.shape[1], device=x.device).float(), frequencies)
        both = torch.cat([angles, angles], dim=-1)
        kind = torch.float32 if self.config.rope_full_precision else x.dtype
        return both.cos().to(kind), both.sin().to(kind)


@cache
def _frequencies(width: int, theta: float, device: torch.device) -> Float[Tensor, " E2"]:
    """Made on the CPU once, as transformers does: devices round powers differently."""
    return (1.0 / theta ** (torch.arange(0, width, 2).float() / width)).to(device)


def _rotate(x: Float[Tensor, "B H L E"], rotation: Rotation) -> Tensor:
    cosines, sines = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-second, first], dim=-1) * sines
