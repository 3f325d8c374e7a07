"""Who answers for a guard: a causal model itself, or a masked diffusion model in its place.

The publications guard causal models. In a masked diffusion model no position of the prompt predicts
the answer's first token and no token is said before the others, so that all here is derived. The
masked positions of a response's first block, in the first denoising step, stand for the last
position of the prompt, their attention averaged; they see a response of one block, however long the
answer will be, so that a calibration holds for answers of any length. What an answer's tokens look
at is read in one pass over prompt and finished answer. Columns that are hidden stay so in all
denoising steps. No watcher is shown what a response looks at in itself.

Letters: B prompts, P positions of one, K columns of the longest, N layers, H heads, R positions of
a response, D width.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from disp_engine.errors import InvalidModelError, InvalidRequestError
from disp_engine.interfaces import (
    AutoregressiveModel,
    Generation,
    HidingModel,
    Respondent,
    VisualModel,
    Watcher,
)
from disp_engine.records import Embedded, Said

BLOCK = 32
"""Tokens of a block; a shorter answer is one block."""


def respondent_of(model: VisualModel) -> Respondent:
    """Who answers for a model."""
    if isinstance(model, AutoregressiveModel):
        return model
    if isinstance(model, HidingModel):
        return DenoisingRespondent(model)
    raise InvalidModelError("config.json: a guard needs a model that shows its attention.")


def is_derived(model: VisualModel) -> bool:
    """Whether a guard of the model is in a form that was not published."""
    return not isinstance(model, AutoregressiveModel)


def refuse_derived(model: VisualModel, what: str) -> None:
    """Refuse what has no form for masked diffusion."""
    if is_derived(model):
        raise InvalidRequestError(f"guard: {what} is for autoregressive models.")


@dataclass(frozen=True)
class Waiting:
    """Prompts that wait for their responses, as if padded on the left."""

    prompts: tuple[Embedded, ...]

    @property
    def pads(self) -> tuple[int, ...]:
        """Columns before each prompt."""
        lengths = [len(prompt.embeddings) for prompt in self.prompts]
        return tuple(max(lengths) - length for length in lengths)


class DenoisingRespondent:
    """Denoises whole answers, and hands them out token by token."""

    def __init__(self, model: HidingModel) -> None:
        self.model = model
        self._watcher: Watcher | None = None
        self._hidden: tuple[Bool[Tensor, "B K"], int] | None = None

    @property
    def depth(self) -> int:
        """Number of layers of the language model."""
        return self.model.depth

    def read(self, prompts: Sequence[Embedded]) -> Waiting:
        """Look at the prompts where somebody watches; they are read when the answer is denoised."""
        waiting, watcher = Waiting(tuple(prompts)), self._watcher
        if watcher is not None:
            masks = self.model.mask_embedding.expand(BLOCK, -1)
            looks = [self._looks(prompt, masks, watcher).mean(dim=2) for prompt in prompts]
            self._show(watcher, looks, waiting.pads)
        return waiting

    def say(self, reading: Waiting, length: int) -> Iterator[Said]:
        """Answers of at most `length` tokens, as they are when all of them are denoised."""
        answers = self._denoised(reading, length)
        looks: list[Float[Tensor, "N H _R _P"]] = []
        for step in range(length):
            alive = torch.tensor([step < len(ids) for ids in answers])
            ids = [ids[step] if step < len(ids) else ids.new_zeros(()) for ids in answers]
            yield Said(torch.stack(ids), alive)
            if not bool(alive.any()):
                return
            if (watcher := self._watcher) is not None:
                looks = looks or self._answer_looks(reading, answers, watcher)
                rows = [_row(look, step) for look in looks]
                self._show(watcher, rows, reading.pads)

    @contextmanager
    def watching(self, watcher: Watcher) -> Iterator[None]:
        """Show the watcher what the answer's positions look at."""
        if watcher.rows == "all":
            raise InvalidRequestError("guard: only autoregressive models show all rows.")
        before, self._watcher = self._watcher, watcher
        try:
            yield
        finally:
            self._watcher = before

    @contextmanager
    def hiding(self, columns: Bool[Tensor, "B K"], first_layer: int) -> Iterator[None]:
        """Hide columns from the answers that are begun meanwhile, in all of their steps."""
        before, self._hidden = self._hidden, (columns, first_layer)
        try:
            yield
        finally:
            self._hidden = before

    def _denoised(self, waiting: Waiting, length: int) -> list[Int[Tensor, " _"]]:
        """Together what nothing is hidden from, and each of the others alone."""
        block = min(BLOCK, length)
        generation = Generation(math.ceil(length / block) * block, block)
        answers: dict[int, Int[Tensor, " _"]] = {}
        for row, (columns, first_layer) in self._hidden_rows(waiting).items():
            with self.model.hiding(columns, first_layer):
                (answers[row],) = self.model.denoise([waiting.prompts[row]], generation)
        rest = [row for row in range(len(waiting.prompts)) if row not in answers]
        if rest:
            together = self.model.denoise([waiting.prompts[row] for row in rest], generation)
            answers |= dict(zip(rest, together, strict=True))
        return [answers[row][:length] for row in range(len(waiting.prompts))]

    def _hidden_rows(self, waiting: Waiting) -> dict[int, tuple[Bool[Tensor, " P"], int]]:
        """Prompts from which something is hidden, by their number."""
        if self._hidden is None:
            return {}
        columns, first_layer = self._hidden
        own = [row[pad:] for row, pad in zip(columns, waiting.pads, strict=True)]
        return {number: (row, first_layer) for number, row in enumerate(own) if bool(row.any())}

    def _answer_looks(
        self, waiting: Waiting, answers: Sequence[Int[Tensor, " _"]], watcher: Watcher
    ) -> list[Float[Tensor, "N H _R _P"]]:
        """Prompt and finished answer read once; an empty answer is one of masks."""
        masks = self.model.mask_embedding[None]
        said = [self.model.token_embeddings(ids) if len(ids) else masks for ids in answers]
        pairs = zip(waiting.prompts, said, strict=True)
        return [self._looks(prompt, words, watcher) for prompt, words in pairs]

    @torch.no_grad()
    def _looks(
        self, prompt: Embedded, response: Float[Tensor, "R D"], watcher: Watcher
    ) -> Float[Tensor, "N H R P"]:
        """Attention that the response's positions pay to the prompt's, in the watched layers."""
        size = len(prompt.embeddings)
        canvas = torch.cat([prompt.embeddings, response])[None]
        rows = torch.arange(size, size + len(response), device=canvas.device)[None]
        return self.model.attention_rows(canvas, rows, sorted(watcher.layers))[0, ..., :size]

    def _show(
        self, watcher: Watcher, looks: Sequence[Float[Tensor, "N H _P"]], pads: Sequence[int]
    ) -> None:
        """One row of each prompt, as a causal model would show its last."""
        aligned = [
            torch.nn.functional.pad(look, (pad, 0)) for look, pad in zip(looks, pads, strict=True)
        ]
        rows = torch.stack(aligned, dim=1)[:, :, :, None]
        for layer, weights in zip(sorted(watcher.layers), rows, strict=True):
            watcher.see(layer, weights.shape[-1] - 1, weights)


def _row(look: Float[Tensor, "N H R P"], step: int) -> Float[Tensor, "N H P"]:
    """A step's row; that of an answer that has ended is its last, which is not counted."""
    return look[:, :, min(step, look.shape[2] - 1)]
