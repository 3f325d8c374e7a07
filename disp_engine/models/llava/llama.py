"""LLaDA: transformers' Llama blocks without the causal mask.

Parameter names are those of LLaDA-V's checkpoint (`model.embed_tokens`, `model.layers.N`,
`model.norm`, `lm_head`) less the prefix `model.`.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

from disp_engine.models.llava.config import LlavaConfig


class FullAttentionLlama(nn.Module):
    """Hidden states in which every position has seen every attended position."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__()
        llama = _llama_config(config)
        self.rope_full_precision = config.rope_full_precision
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            LlamaDecoderLayer(llama, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = None if config.tied_head else _head(config)
        with torch.device("cpu"):  # computed and not in the checkpoint, so never left on `meta`
            self.rotary_emb = LlamaRotaryEmbedding(llama)

    def forward(
        self,
        embeddings: Float[Tensor, "B L D"],
        attended: Bool[Tensor, "B L"] | Bool[Tensor, "B L L"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Run all layers; `attended` marks keys, or [query, key] pairs; None attends to all."""
        rotary = self.rotary(embeddings)
        mask = None if attended is None else _broadcastable(attended)
        hidden = embeddings
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary, is_causal=False)
        normed: Tensor = self.norm(hidden)
        return normed

    def rotary(self, embeddings: Float[Tensor, "B L D"]) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the positions from 0 on, in the type the layout rotates in."""
        positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
        rotated = embeddings.float() if self.rope_full_precision else embeddings
        cosines, sines = self.rotary_emb(rotated, position_ids=positions)
        return cosines, sines

    def named(self) -> dict[str, nn.Module]:
        """The parts by the prefix of their tensors' names; a tied head has no tensor of its own."""
        kept = ("embed_tokens", "layers", "norm")
        parts: dict[str, nn.Module] = {f"model.{n}.": self.get_submodule(n) for n in kept}
        return parts if self.lm_head is None else parts | {"lm_head.": self.lm_head}

    def logits(self, hidden: Float[Tensor, "*R D"]) -> Float[Tensor, "*R V"]:
        """Vocabulary logits of the given rows of hidden states."""
        if self.lm_head is not None:
            scores: Tensor = self.lm_head(hidden)
        else:
            table = self.embed_tokens.weight
            scores = functional.linear(hidden.to(table.device), table)
        return scores.to(hidden.device)

    def token_embeddings(self, ids: Int[Tensor, "*R"]) -> Float[Tensor, "*R D"]:
        """Embeddings of token ids."""
        rows: Tensor = self.embed_tokens(ids)
        return rows


def _head(config: LlavaConfig) -> nn.Linear:
    return nn.Linear(config.hidden_size, config.vocab_size, bias=False)


def _broadcastable(attended: Bool[Tensor, "B ..."]) -> Bool[Tensor, "B 1 Q L"]:
    """Add the heads' axis, and the queries' axis when all queries attend to the same keys."""
    return attended[:, None] if attended.ndim == 3 else attended[:, None, None]


def _llama_config(config: LlavaConfig) -> LlamaConfig:
    llama = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
    )
    llama._attn_implementation = _AFTER_ROPE
    return llama


_AFTER_ROPE = "sdpa_after_rope"


def _sdpa_after_rope(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
) -> Any:
    """SDPA in the values' type: queries and keys may have been rotated in float32."""
    kind = value.dtype
    return sdpa_attention_forward(module, query.to(kind), key.to(kind), value, *rest, **options)


AttentionInterface.register(_AFTER_ROPE, _sdpa_after_rope)
