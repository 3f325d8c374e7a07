"""LLaDA: transformers' Llama blocks without the causal mask.

Parameter names are those of LLaDA-V's checkpoint (`model.embed_tokens`, `model.layers.N`,
`model.norm`, `lm_head`) less the prefix `model.`.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from disp_engine.diffusion.surprise import linear_surprise
from disp_engine.models.llava.cache import PromptCache
from disp_engine.models.llava.config import LlavaConfig
from disp_engine.models.llava.hiding import seen_by
from disp_engine.models.llava.layer import FullAttentionLayer, RootMeanSquareNorm


class FullAttentionLlama(nn.Module):
    """Hidden states in which every position has seen every attended position."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__()
        llama = _llama_config(config)
        self.rope_full_precision = config.rope_full_precision
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            FullAttentionLayer(llama, number) for number in range(config.num_hidden_layers)
        )
        self.norm = RootMeanSquareNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = None if config.tied_head else _head(config)
        with torch.device("cpu"):  # computed and not in the checkpoint, so never left on `meta`
            self.rotary_emb = LlamaRotaryEmbedding(llama)

    def forward(
        self,
        embeddings: Float[Tensor, "B L D"],
        attended: Bool[Tensor, "B K"] | Bool[Tensor, "B L L"] | None = None,
        rows: Int[Tensor, "B R"] | None = None,
        real: Bool[Tensor, "B R"] | None = None,
        cache: PromptCache | None = None,
    ) -> Float[Tensor, "*R D"]:
        """Run all layers; `attended` marks keys, or [query, key] pairs; None attends to all.

        With `rows` the last layer is run at these positions only, and the result is theirs:
        [B R D], or [M D] of those that are `real`, in their order. A `cache` is filled, or is seen
        before the embeddings, which then follow its prompts.
        """
        rotary = self.rotary(embeddings, cache)
        mask = None if attended is None else broadcastable(attended)
        keys = embeddings.shape[1] + (0 if cache is None else cache.length)
        hidden, last = embeddings, len(self.layers) - 1
        for number, layer in enumerate(self.layers[:last]):
            hidden = layer(hidden, rotary, seen_by(number, mask, keys), cache=cache)
        seen = seen_by(last, mask, keys)
        normed: Tensor = self.norm(self.layers[last](hidden, rotary, seen, rows, real, cache))
        return normed

    def rotary(
        self, embeddings: Float[Tensor, "B L D"], cache: PromptCache | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the positions, in the type the layout rotates in.

        They are counted from 0, or from where the text that is kept goes on.
        """
        positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
        if cache is not None and cache.length:
            positions = cache.following[:, None] + positions
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

    def surprise(
        self, hidden: Float[Tensor, "M D"], labels: Int[Tensor, " M"]
    ) -> Float[Tensor, " M"]:
        """-log P of each label, in float32."""
        head = (self.embed_tokens if self.lm_head is None else self.lm_head).weight
        losses = linear_surprise(hidden.to(head.device), labels.to(head.device), head)
        return losses.to(hidden.device)

    def token_embeddings(self, ids: Int[Tensor, "*R"]) -> Float[Tensor, "*R D"]:
        """Embeddings of token ids."""
        rows: Tensor = self.embed_tokens(ids)
        return rows


def _head(config: LlavaConfig) -> nn.Linear:
    return nn.Linear(config.hidden_size, config.vocab_size, bias=False)


def broadcastable(attended: Bool[Tensor, "B ..."]) -> Bool[Tensor, "B 1 Q L"]:
    """Add the heads' axis, and the queries' axis when all queries attend to the same keys."""
    return attended[:, None] if attended.ndim == 3 else attended[:, None, None]


def _llama_config(config: LlavaConfig) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
    )
