"""Transformers' Llama layer with fewer passes over memory, and on the wanted rows alone.

Parameters, their names and the function are `LlamaDecoderLayer`'s. For the way back through frozen
weights the norms keep their input alone, rotation keeps nothing of what it turns, and SwiGLU keeps
two rows. Letters: B batch, L positions, R rows, H heads, E their width, D width of the stream, F of
the MLP.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from disp_engine.models.llava.cache import PromptCache


class FullAttentionLayer(LlamaDecoderLayer):  # type: ignore[no-untyped-call]
    """A layer without the causal mask."""

    def __init__(self, config: LlamaConfig, number: int) -> None:
        super().__init__(config, number)
        self.input_layernorm = RootMeanSquareNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RootMeanSquareNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden: Float[Tensor, "B L D"],
        rotary: tuple[Tensor, Tensor],
        attended: Bool[Tensor, "B 1 Q K"] | None = None,
        rows: Int[Tensor, "B R"] | None = None,
        real: Bool[Tensor, "B R"] | None = None,
        cache: PromptCache | None = None,
    ) -> Float[Tensor, "*R D"]:
        """The stream after the layer: everywhere, or at `rows`, or at those that are `real`.

        What `cache` holds is seen too, before the L positions.
        """
        normed = self.input_layernorm(hidden)
        attention, (cosines, sines) = self.self_attn, rotary
        key = rotated(self._heads(attention.k_proj(normed)), cosines, sines)
        value = self._heads(attention.v_proj(normed))
        if cache is not None:
            key, value = cache.along(attention.layer_idx, key, value)
        if rows is not None:
            places = rows[:, :, None]
            normed, hidden = (x.take_along_dim(places, dim=1) for x in (normed, hidden))
            cosines, sines = (x.take_along_dim(places, dim=1) for x in rotary)
            if attended is not None and attended.shape[2] > 1:
                attended = attended.take_along_dim(places[:, None], dim=2)
        query = rotated(self._heads(attention.q_proj(normed)), cosines, sines)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        seen, _ = sdpa_attention_forward(
            attention, query, key, value, attended, scaling=attention.scaling, is_causal=False
        )
        seen = seen.flatten(2)
        if real is not None:
            seen, hidden = seen[real], hidden[real]
        hidden = hidden + attention.o_proj(seen)
        normed, mlp = self.post_attention_layernorm(hidden), self.mlp
        stream: Tensor = hidden + mlp.down_proj(gated(mlp.gate_proj(normed), mlp.up_proj(normed)))
        return stream

    def _heads(self, x: Float[Tensor, "B L HE"]) -> Float[Tensor, "B L H E"]:
        return x.view(*x.shape[:-1], -1, self.self_attn.head_dim)


class RootMeanSquareNorm(LlamaRMSNorm):
    """Transformers' norm; while its weight is frozen it keeps its input only, and one more row."""

    def forward(self, x: Float[Tensor, "*L D"]) -> Float[Tensor, "*L D"]:
        """x / rms(x), in float32 and rounded to x's type, times the weight."""
        if self.weight.requires_grad:
            learned: Tensor = super().forward(x)
            return learned
        normed: Tensor = _Norm.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.variance_epsilon
        )
        return normed


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        inverse = wide.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        return (wide * inverse).to(x.dtype) * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """r (g w - n mean(g w n)) with n = x r."""
        x, inverse, weight = ctx.saved_tensors
        normed, weighted = x.float() * inverse, (gradient * weight).float()
        along = (weighted * normed).mean(-1, keepdim=True)
        return (weighted.addcmul_(normed, along, value=-1).mul_(inverse)).to(x.dtype), None, None


def gated(gate: Float[Tensor, "*L F"], up: Float[Tensor, "*L F"]) -> Float[Tensor, "*L F"]:
    """SiLU(gate) times up, SwiGLU's inner row; without a way back it is written over `gate`."""
    if not (torch.is_grad_enabled() and (gate.requires_grad or up.requires_grad)):
        return functional.silu(gate, inplace=True).mul_(up)
    product: Tensor = _Gate.apply(gate, up)  # type: ignore[no-untyped-call]
    return product


class _Gate(Function):
    """SwiGLU that keeps its two slopes, so that the way back is one product for each input."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        along_up = functional.silu(gate)
        ctx.save_for_backward(torch.ops.aten.silu_backward(up, gate), along_up)
        return along_up * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        along_gate, along_up = ctx.saved_tensors
        return gradient * along_gate, gradient * along_up


def rotated(
    x: Float[Tensor, "B L H E"], cosines: Float[Tensor, "b L E"], sines: Float[Tensor, "b L E"]
) -> Float[Tensor, "B L H E"]:
    """RoPE by the angles of the L positions."""
    turned: Tensor = _Rotation.apply(x, cosines, sines)  # type: ignore[no-untyped-call]
    return turned


class _Rotation(Function):
    """RoPE; the way back is the rotation back, so that nothing is kept of x [B L H E]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        cosine = cosines[:, :, None]
        sine = torch.cat([-sines[..., :half], sines[..., half:]], dim=-1)[:, :, None]
        ctx.save_for_backward(cosine, sine)
        return _turned(x, cosine, sine)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _turned(gradient, cosine, -sine), None, None


def _turned(
    x: Float[Tensor, "B L H E"], cosine: Float[Tensor, "b L 1 E"], sine: Float[Tensor, "b L 1 E"]
) -> Float[Tensor, "B L H E"]:
    """Turn each pair (x_i, x_{i + E/2}), in the wider of the types, rounded to x's."""
    first, second = x.chunk(2, dim=-1)
    crossed = torch.cat([second, first], dim=-1).to(cosine.dtype)
    return crossed.mul_(sine).addcmul_(x, cosine).to(x.dtype)
