"""Transformers' DiffusionGemma with the masks that its `forward` drops.

The encoder reads a prompt causally, each picture's tokens bidirectionally, and leaves keys and
values; the decoder reads them and sees the whole canvas. Transformers' `forward` builds the
encoder's mask and then uses a causal one, so masks are always passed explicitly here.

Prompts of different lengths are padded on the LEFT: sliding layers keep the last entries, which
must be those of the prompt. Letters: B prompts, L positions, T canvas, D width, V vocabulary.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import (
    DiffusionGemmaForBlockDiffusion,
)
from transformers.utils import logging

from disp_engine.errors import InvalidModelError
from disp_engine.records import Embedded


@dataclass(frozen=True)
class Prompts:
    """B prompts side by side, padded on the left.

    `visual` marks visual tokens; `attended` what may be read, neither padding nor dropped;
    `positions` count from each prompt's own begin.
    """

    embeddings: Float[Tensor, "B L D"]
    visual: Bool[Tensor, "B L"]
    attended: Bool[Tensor, "B L"]
    positions: Int[Tensor, "B L"]

    @classmethod
    def of(cls, prompts: Sequence[Embedded]) -> "Prompts":
        """Lay prompts side by side."""
        longest = max(len(prompt.embeddings) for prompt in prompts)
        rows = [_padded(prompt, longest) for prompt in prompts]
        embeddings, visual, attended, positions = (
            torch.stack(part) for part in zip(*rows, strict=True)
        )
        return cls(embeddings, visual, attended, positions)

    @property
    def next_position(self) -> Int[Tensor, " B"]:
        """Position of the token after each prompt."""
        return self.positions[:, -1] + 1


@dataclass
class Prefix:
    """What the encoder has left of B rows: their cache, who may be read, where they go on.

    `hidden` are the states of the N positions that were read last. `gate` weighs each position's
    share of the attention (1 as it is, 0 dropped), for those who differentiate in it.
    """

    cache: Any
    attended: Bool[Tensor, "B L"]
    next_position: Int[Tensor, " B"]
    hidden: Float[Tensor, "B N D"]
    gate: Float[Tensor, "B L"] | None = None

    def repeated(self, times: int) -> "Prefix":
        """Each row `times` times, one after the other, in the same graph."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_repeat_interleave(times)
        gate = None if self.gate is None else self.gate.repeat_interleave(times, dim=0)
        return Prefix(
            cache,
            self.attended.repeat_interleave(times, dim=0),
            self.next_position.repeat_interleave(times),
            self.hidden.repeat_interleave(times, dim=0),
            gate,
        )


class Backbone:
    """The frozen model: encode prompts, go on encoding, decode a canvas."""

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model.eval().requires_grad_(False)

    @classmethod
    def assembled(
        cls, config: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype
    ) -> "Backbone":
        """Give transformers' model the tensors; every one must be used and none be missing."""
        with _without_progress_bar():
            library: Any = DiffusionGemmaForBlockDiffusion
            model, told = library.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                dtype=dtype,
                output_loading_info=True,
                attn_implementation="sdpa",
            )
        left = [*told["missing_keys"], *told["unexpected_keys"], *told["mismatched_keys"]]
        if left:
            raise InvalidModelError(f"The weights do not fit: {sorted(map(str, left))[0]}.")
        return cls(model)

    @property
    def config(self) -> Any:
        """The text model's config."""
        return self.model.config.text_config

    @property
    def embedding(self) -> Float[Tensor, "V D"]:
        """The table of token embeddings, not yet scaled."""
        table: Tensor = self.model.model.decoder.embed_tokens.weight
        return table

    def token_embeddings(self, ids: Int[Tensor, "*R"]) -> Float[Tensor, "*R D"]:
        """Embeddings of text tokens, scaled by sqrt(D) as the model does."""
        rows: Tensor = self.model.model.decoder.embed_tokens(ids)
        return rows

    def encode(self, prompts: Prompts, gate: Float[Tensor, "B L"] | None = None) -> Prefix:
        """Read prompts; `gate` weighs each position's share of all later attention."""
        cache = DynamicCache(config=self.config)
        masks = self._encoder_masks(
            prompts.embeddings, prompts.attended, cache, prompts.positions, prompts.visual.long()
        )
        if gate is not None:
            masks = {kind: _weighed(mask, gate) for kind, mask in masks.items()}
        out = self.model.model.encoder(
            inputs_embeds=prompts.embeddings,
            attention_mask=masks,
            cache=cache,
            position_ids=prompts.positions,
        )
        return Prefix(cache, prompts.attended, prompts.next_position, out.last_hidden_state, gate)

    def go_on(self, prefix: Prefix, ids: Int[Tensor, "B T"]) -> Prefix:
        """Read text that follows; the prefix's cache is used up."""
        embeddings = self.token_embeddings(ids)
        attended = torch.cat([prefix.attended, torch.ones_like(ids, dtype=torch.bool)], dim=1)
        positions = self._following(prefix, ids.shape[1])
        masks = self._encoder_masks(embeddings, attended, prefix.cache, positions, None)
        out = self.model.model.encoder(
            inputs_embeds=embeddings,
            attention_mask=masks,
            cache=prefix.cache,
            position_ids=positions,
        )
        return Prefix(prefix.cache, attended, positions[:, -1] + 1, out.last_hidden_state)

    def decode(
        self,
        prefix: Prefix,
        canvas: Int[Tensor, "B T"],
        guess: Float[Tensor, "B T V"] | None = None,
        guessed: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Hidden states of a canvas; `guess` are the last step's logits (None: a first step).

        `guessed` marks the rows whose guess counts (None: all).
        """
        out = self.model.model.decoder(
            decoder_input_ids=canvas,
            cache=prefix.cache,
            self_conditioning_logits=guess,
            self_conditioning_mask=guessed,
            decoder_attention_mask=self._decoder_masks(prefix, canvas.shape[1]),
            decoder_position_ids=self._following(prefix, canvas.shape[1]),
        )
        hidden: Tensor = out.last_hidden_state
        return hidden

    def logits(self, hidden: Float[Tensor, "*R D"]) -> Float[Tensor, "*R V"]:
        """Vocabulary logits in float32, softly capped."""
        cap = self.model.final_logit_softcapping
        scores: Tensor = torch.tanh(self.model.lm_head(hidden).float() / cap) * cap
        return scores

    def _following(self, prefix: Prefix, length: int) -> Int[Tensor, "B T"]:
        steps = torch.arange(length, device=prefix.next_position.device)
        return prefix.next_position[:, None] + steps

    def _encoder_masks(
        self,
        embeddings: Float[Tensor, "B L D"],
        attended: Bool[Tensor, "B S"],
        cache: Any,
        positions: Int[Tensor, "B L"],
        kinds: Int[Tensor, "B L"] | None,
    ) -> dict[str, Tensor]:
        """One mask for each kind of layer, visual tokens of one picture seeing one another."""
        masks: dict[str, Tensor] = self.model.model.encoder.create_masks_for_generate(
            config=self.config,
            inputs_embeds=embeddings,
            attention_mask=attended,
            cache=cache,
            position_ids=positions,
            mm_token_type_ids=kinds,
        )
        return masks

    def _decoder_masks(
        self, prefix: Prefix, length: int
    ) -> dict[str, Float[Tensor, "B 1 T _K"] | Bool[Tensor, "B 1 T _K"] | None]:
        """The canvas sees all of itself and what each kind of layer has kept of the prefix."""
        kinds = dict(zip(self.config.layer_types, prefix.cache.layers, strict=True))
        if prefix.gate is None and bool(prefix.attended.all()):
            return dict.fromkeys(kinds)
        canvas = prefix.attended.new_ones(len(prefix.attended), length)
        masks: dict[str, Tensor | None] = {}
        for kind, layer in kinds.items():
            kept = layer.keys.shape[-2]
            seen = torch.cat([prefix.attended[:, -kept:], canvas], dim=1)[:, None, None]
            if prefix.gate is None:
                masks[kind] = seen.expand(-1, 1, length, -1)
            else:
                gate = torch.cat([prefix.gate[:, -kept:], canvas.to(prefix.gate)], dim=1)
                masks[kind] = _weighed(seen.expand(-1, 1, length, -1), gate)
        return masks


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    library: Any = logging
    shown = library.is_progress_bar_enabled()
    library.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            library.enable_progress_bar()


def _weighed(mask: Bool[Tensor, "B 1 Q K"], gate: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 Q K"]:
    """An additive mask under which each key's share of the attention is multiplied by its gate."""
    lowest = torch.finfo(gate.dtype).min
    return torch.where(mask, gate.log()[:, None, None], lowest)


def _padded(prompt: Embedded, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    size = len(prompt.embeddings)
    pad = length - size
    attended = torch.ones(size, dtype=torch.bool, device=prompt.embeddings.device)
    if prompt.attended is not None:
        attended = prompt.attended
    positions = torch.arange(-pad, size, device=prompt.embeddings.device).clamp(min=0)
    return (
        nn.functional.pad(prompt.embeddings, (0, 0, pad, 0)),
        nn.functional.pad(prompt.visual(), (pad, 0)),
        nn.functional.pad(attended, (pad, 0)),
        positions,
    )
