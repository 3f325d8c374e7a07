"""Transformers' causal language model: prompts in, next tokens out.

Prompts of different lengths are padded on the left, as transformers' own `generate` wants them.
Letters: B prompts, L positions, K columns read so far, D width, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from transformers.cache_utils import DynamicCache
from transformers.utils import logging

from disp_engine.errors import InvalidModelError, SampleError
from disp_engine.models.autoregressive.attention import NAME
from disp_engine.records import IGNORE, Embedded, Reading


class Backbone:
    """The frozen model; its parts are transformers'."""

    def __init__(self, model: nn.Module) -> None:
        whole: Any = model.eval().requires_grad_(False)
        self.whole, self.language = whole, whole.model.language_model

    @classmethod
    def assembled(
        cls, kind: Any, config: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype
    ) -> "Backbone":
        """Give transformers' model the tensors; every one must be used and none be missing."""
        with quietly():
            model, told = kind.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                dtype=dtype,
                output_loading_info=True,
                attn_implementation={"": "sdpa", "text_config": NAME, "vision_config": "sdpa"},
            )
        left = [*told["missing_keys"], *told["unexpected_keys"], *told["mismatched_keys"]]
        if left:
            raise InvalidModelError(f"The weights do not fit: {sorted(map(str, left))[0]}.")
        return cls(model)

    @property
    def embedding(self) -> Float[Tensor, "V D"]:
        """The table of token embeddings."""
        table: Tensor = self.language.embed_tokens.weight
        return table

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.language.layers)

    def token_embeddings(self, ids: Int[Tensor, "*R"]) -> Float[Tensor, "*R D"]:
        """Embeddings of text tokens."""
        rows: Tensor = self.language.embed_tokens(ids)
        return rows

    def read(self, prompts: Sequence[Embedded]) -> Reading:
        """Read prompts from their begin."""
        longest = max(len(prompt.embeddings) for prompt in prompts)
        pads = tuple(longest - len(prompt.embeddings) for prompt in prompts)
        embeddings = torch.stack(
            [pad(p.embeddings, (0, 0, n, 0)) for p, n in zip(prompts, pads, strict=True)]
        )
        columns = torch.arange(longest, device=embeddings.device)
        attended = columns >= torch.tensor(pads, device=embeddings.device)[:, None]
        positions = _positions(prompts, pads)
        cache = DynamicCache(config=self.language.config)
        following = positions.reshape(-1, len(prompts), longest).amax(dim=(0, 2)) + 1
        logits = self._last_logits(embeddings, attended, positions, cache)
        return Reading(cache, pads, attended, following, logits)

    def go_on(self, reading: Reading, ids: Int[Tensor, " B"]) -> Reading:
        """Read one more token of each row; the reading that was is used up."""
        attended = pad(reading.attended, (0, 1), value=True)
        positions = reading.following[:, None]
        rows = self.token_embeddings(ids[:, None])
        logits = self._last_logits(rows, attended, positions, reading.cache)
        return Reading(reading.cache, reading.pads, attended, reading.following + 1, logits)

    def next_token_loss(self, batch: Sequence[Embedded]) -> Float[Tensor, ""]:
        """Mean cross-entropy of the labelled tokens, each from the positions before it."""
        return cross_entropy(*self.answer_logits(batch))

    def answer_logits(
        self, batch: Sequence[Embedded]
    ) -> tuple[Float[Tensor, "N V"], Int[Tensor, " N"]]:
        """Logits of the labelled tokens, each from the positions before it, and the tokens."""
        longest = max(len(example.embeddings) for example in batch)
        rows, targets = [], []
        for example in batch:
            if example.labels is None:
                raise SampleError("A training example needs labels.")
            after = longest - len(example.embeddings)
            rows.append(pad(example.embeddings, (0, 0, 0, after)))
            targets.append(pad(example.labels[1:], (0, after + 1), value=IGNORE))
        positions = _positions(batch, [0] * len(batch), longest)
        hidden = self.language(
            inputs_embeds=torch.stack(rows), position_ids=positions, use_cache=False
        ).last_hidden_state
        wanted = torch.stack(targets)
        chosen = wanted != IGNORE
        return self.whole.lm_head(hidden[chosen]).float(), wanted[chosen]

    def _last_logits(
        self,
        embeddings: Float[Tensor, "B L D"],
        attended: Bool[Tensor, "B K"],
        positions: Int[Tensor, "B L"] | Int[Tensor, "3 B L"],
        cache: Any,
    ) -> Float[Tensor, "B V"]:
        hidden = self.language(
            inputs_embeds=embeddings,
            attention_mask=attended,
            position_ids=positions,
            cache=cache,
            use_cache=True,
        ).last_hidden_state
        logits: Tensor = self.whole.lm_head(hidden[:, -1])
        return logits.float()


def _positions(
    prompts: Sequence[Embedded], pads: Sequence[int], longest: int | None = None
) -> Int[Tensor, "B L"] | Int[Tensor, "3 B L"]:
    """Positions from each prompt's own begin; padding has position 0.

    Three of each where a prompt tells them, that of a text token three times the same.
    """
    width = longest or len(prompts[0].embeddings) + pads[0]
    rows = []
    for prompt, before in zip(prompts, pads, strict=True):
        size, place = len(prompt.embeddings), prompt.embeddings.device
        own = prompt.positions
        if own is None:
            own = torch.arange(size, device=place)
        rows.append(pad(own, (before, width - before - size)))
    return torch.stack(rows, dim=-2)


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' progress bar and without its remarks on special ids."""
    library: Any = logging
    shown, level = library.is_progress_bar_enabled(), library.get_verbosity()
    library.disable_progress_bar()
    library.set_verbosity_error()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if shown:
            library.enable_progress_bar()
