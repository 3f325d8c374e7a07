"""PurMM: attention-guided test-time purification (Jiang et al., AAAI 2026).

Visual tokens that the answer looks at abnormally much are located in every layer, filtered by where
the deep layers look, and zeroed behind the projector; the model then answers again. It needs no
clean data and says nothing of whether there was a trigger.

What defeats it: triggers spread over the whole picture, which hijack no few tokens; a trigger whose
neighbourhood also holds what the question asks for. Each answer takes two, but with `rows` last:
then the prompt is read again and nothing is said twice.

On masked diffusion models it is derived: see `respondent.py`.

Letters: L layers, P visual tokens, T positions, K columns, v attention of a token in a layer.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from disp_engine.errors import InvalidRequestError
from disp_engine.guards.guard import (
    Guard,
    Judged,
    Ruling,
    Verdict,
    cells,
    visual_tokens,
    zeroed,
)
from disp_engine.guards.localisation import CLUSTERINGS, Values, contrast, suspected
from disp_engine.guards.respondent import refuse_derived
from disp_engine.interfaces import DiffusionModel, PromptsRead, VisualModel
from disp_engine.records import Embedded, Grid

ROWS = ("answer", "all_causal", "last")
REFERENCES = (
    "deep_half", "deep_half_and_one", "middle_layer", "most_frequent_8", "most_frequent_5",
    "shallow_filtered", "none",
)  # fmt: skip
REPLACEMENTS = ("zero", "mask")
SHALLOW = 2
"""Layers that the authors' later scripts call shallow."""


@dataclass(frozen=True)
class PurMMSettings:
    """Whose rows are averaged, how tokens are clustered, and what the filter refers to.

    `rows`: of the `answer` (the authors' code), of all positions from each token on (`all_causal`,
    the paper; only of autoregressive models), or the `last` of the prompt. `reference`: `deep_half`
    is the paper's (Eq. 5); the others are those of the authors' scripts: from the layer before the
    deep half on, the layer in the middle alone, the tokens most often suspected behind the first
    two layers, only what the first two layers suspect filtered, or no filter.

    Three more are derived, and off where they are not set. `contrast`: a layer's suspects count
    only where they are looked at so many times as much as the others, mean against mean; a
    clustering always finds a group. `rounds`: with `rows` last, locate again in what is left, for
    one trigger token hides another. `replacement`: a diffusion model can be shown its `mask` in
    place of zeros, which it has never seen.
    """

    rows: str = "answer"
    clustering: str = "kmeans"
    reference: str = "deep_half"
    contrast: float | None = None
    rounds: int = 1
    replacement: str = "zero"

    def check(self) -> None:
        """Refuse names of nothing."""
        if self.rows not in ROWS:
            raise InvalidRequestError(f"guard: rows is {', '.join(ROWS)}.")
        if self.clustering not in CLUSTERINGS:
            raise InvalidRequestError(f"guard: clustering is {', '.join(CLUSTERINGS)}.")
        if self.reference not in REFERENCES:
            raise InvalidRequestError(f"guard: reference is {', '.join(REFERENCES)}.")
        if self.contrast is not None and self.contrast <= 1:
            raise InvalidRequestError("guard: contrast must be above 1.")
        if self.rounds < 1 or (self.rounds > 1 and self.rows != "last"):
            raise InvalidRequestError("guard: rounds is 1, or more with rows last.")
        if self.replacement not in REPLACEMENTS:
            raise InvalidRequestError(f"guard: replacement is {', '.join(REPLACEMENTS)}.")

    def build(self, model: VisualModel) -> "PurMM":
        """The guard of a model."""
        self.check()
        if self.rows == "all_causal":
            refuse_derived(model, "rows all_causal")
        if self.replacement == "mask" and not isinstance(model, DiffusionModel):
            raise InvalidRequestError("guard: replacement mask is for diffusion models.")
        return PurMM(model, self)


class PurMM(Guard):
    """Answers, looks at what the answer looked at, and answers again without it."""

    def __init__(self, model: VisualModel, settings: PurMMSettings) -> None:
        super().__init__(model)
        self.settings = settings

    @property
    def derived(self) -> bool:
        """Also by the last row, which neither paper nor authors take, and with a contrast."""
        told = self.settings
        return super().derived or told.rows == "last" or told.contrast is not None

    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Answer once; where tokens are suspected, let the model answer without them."""
        if self.settings.rows == "last":
            return self._judge_unsaid(prompts)
        answers, watched = self._first_answers(prompts, length)
        rulings = []
        for row, (prompt, said) in enumerate(zip(prompts, answers, strict=True)):
            seen = watched.means(row, len(prompt.embeddings), len(said))
            removed = [] if seen is None else self.located(prompt, seen)
            verdict = Verdict(removed=cells(prompt, removed))
            if removed:
                rulings.append(Ruling(verdict, self._without(prompt, removed)))
            else:
                rulings.append(Ruling(verdict, prompt, said))
        return Judged(tuple(rulings))

    def _judge_unsaid(self, prompts: Sequence[Embedded]) -> Judged:
        """Locate by what the prompts' last rows look at, before anything is said."""
        shown = list(prompts)
        removed: list[set[int]] = [set() for _ in prompts]
        for _ in range(self.settings.rounds):
            reading, watched = self._read(shown)
            changed = False
            for row, prompt in enumerate(shown):
                seen = watched.means(row, len(prompt.embeddings), 0)
                found = set() if seen is None else set(self.located(prompt, seen)) - removed[row]
                if found:
                    removed[row] |= found
                    shown[row] = self._without(prompt, sorted(found))
                    changed = True
            if not changed:
                break
        rulings = tuple(
            Ruling(Verdict(removed=cells(prompt, sorted(gone))), prompt)
            for prompt, gone in zip(shown, removed, strict=True)
        )
        return Judged(rulings, None if changed else reading)

    def _read(self, prompts: Sequence[Embedded]) -> tuple[PromptsRead, "ColumnSums"]:
        """The prompts read, and what their last rows looked at."""
        watched = ColumnSums(self.respondent.depth, "last", [len(p.embeddings) for p in prompts])
        with self.respondent.watching(watched):
            return self.respondent.read(prompts), watched

    def _without(self, prompt: Embedded, tokens: Sequence[int]) -> Embedded:
        """The prompt with the replacement in place of some visual tokens."""
        if self.settings.replacement == "zero":
            return zeroed(prompt, tokens)
        assert isinstance(self.model, DiffusionModel)
        chosen = torch.zeros_like(prompt.visual())
        chosen[list(tokens)] = True
        return self.model.hide(prompt, chosen[prompt.visual()])

    def located(self, prompt: Embedded, seen: Float[Tensor, "L T"]) -> list[int]:
        """Positions of the tokens to zero, given the attention to each position in each layer."""
        tokens = visual_tokens(prompt)
        values = seen[:, tokens].double().cpu().numpy()
        layers = [self._of_layer(v) for v in values]
        reference = self.settings.reference
        if self.settings.contrast is not None and not joined(layers[len(layers) // 2 :]):
            reference = "none"  # where no deep layer counts there is nothing to filter by
        by_number = retained(layers, neighbourhoods(prompt.grids), reference)
        return [tokens[number] for number in sorted(by_number)]

    def _of_layer(self, v: Values) -> frozenset[int]:
        """Eq. 3, and nobody where the contrast is too low."""
        found, least = suspected(v, self.settings.clustering), self.settings.contrast
        return found if least is None or contrast(v, found) >= least else frozenset()

    def _first_answers(
        self, prompts: Sequence[Embedded], length: int
    ) -> tuple[list[Int[Tensor, " _"]], "ColumnSums"]:
        """The model's answers, and the attention that the wanted rows paid meanwhile."""
        rows = self.settings.rows
        lengths = [len(prompt.embeddings) for prompt in prompts]
        watched = ColumnSums(self.respondent.depth, rows, lengths)
        reads = nullcontext() if rows == "answer" else self.respondent.watching(watched)
        with reads:
            reading = self.respondent.read(prompts)
        answers: list[list[Tensor]] = [[] for _ in prompts]
        watched.in_prompt = False
        with self.respondent.watching(watched):
            for said in self.respondent.say(reading, length):
                watched.counted = said.alive
                for row in said.alive.nonzero()[:, 0].tolist():
                    answers[row].append(said.ids[row])
        empty = torch.zeros(0, dtype=torch.long)
        return [torch.stack(ids) if ids else empty for ids in answers], watched


class ColumnSums:
    """Attention to each column of the prompts, averaged over heads (Eq. 1), summed over rows."""

    def __init__(self, depth: int, rows: str, lengths: Sequence[int]) -> None:
        self.layers = frozenset(range(depth))
        self.wanted, self.lengths, self.longest = rows, lengths, max(lengths)
        self.in_prompt = True
        self.counted: Bool[Tensor, " B"] = torch.ones(len(lengths), dtype=torch.bool)
        self.sums: list[Tensor | None] = [None] * depth

    @property
    def rows(self) -> Literal["last", "all"]:
        """All rows of a prompt only where they are wanted."""
        return "all" if self.in_prompt and self.wanted == "all_causal" else "last"

    def see(self, layer: int, first: int, weights: Float[Tensor, "B H R _K"]) -> None:
        """Add rows; padding rows and those of answers that have ended do not count."""
        heads = weights[..., : self.longest].mean(dim=1)
        if self.in_prompt:
            before = self.longest - torch.tensor(self.lengths)[:, None]
            real = (first + torch.arange(heads.shape[1]))[None] >= before
        else:
            real = self.counted[:, None]
        summed = (heads * real[..., None].to(heads)).sum(dim=1)
        known = self.sums[layer]
        self.sums[layer] = summed if known is None else known + summed

    def means(self, row: int, size: int, answered: int) -> Float[Tensor, "L T"] | None:
        """Mean attention to each position of a prompt of `size`, by layer; None without rows.

        All rows from a position on: `size` less the position, and those of the answer.
        """
        found = [part[row, self.longest - size :] for part in self.sums if part is not None]
        if not found or (self.wanted == "answer" and not answered):
            return None
        sums = torch.stack(found)
        if self.wanted == "all_causal":
            return sums / (answered + torch.arange(size, 0, -1, device=sums.device))
        return sums / (answered if self.wanted == "answer" else 1)


def retained(
    layers: Sequence[frozenset[int]],
    near: Sequence[frozenset[int]],
    reference: str,
) -> frozenset[int]:
    """Suspected tokens of any layer (Eq. 4) that lie near the reference set (Eqs. 5 to 8).

    `near` are each token's neighbours, itself among them.
    """
    depth = len(layers)
    union, behind = joined(layers), joined(layers[SHALLOW:])
    match reference:
        case "none":
            return union
        case "deep_half":
            wanted = joined(layers[depth // 2 :])
        case "deep_half_and_one":
            wanted = joined(layers[max(0, depth // 2 - 1) :])
        case "middle_layer":
            wanted = layers[depth // 2]
            if not wanted:
                return union
        case "shallow_filtered":
            return behind | (joined(layers[:SHALLOW]) & around(behind, near))
        case _:
            wanted = _most_frequent(layers[SHALLOW:], int(reference[-1]))
    return union & around(wanted, near)


def around(tokens: frozenset[int], near: Sequence[frozenset[int]]) -> frozenset[int]:
    """The tokens and their neighbours (Eq. 7)."""
    return joined([near[token] for token in tokens])


def joined(parts: Sequence[frozenset[int]]) -> frozenset[int]:
    """The tokens of all parts."""
    return frozenset(token for part in parts for token in part)


def _most_frequent(layers: Sequence[frozenset[int]], count: int) -> frozenset[int]:
    """Tokens suspected by most layers; among equals the first in the picture."""
    often = Counter(token for layer in layers for token in sorted(layer))
    ordered = sorted(often, key=lambda token: (-often[token], token))
    return frozenset(ordered[:count])


def neighbourhoods(grids: Sequence[Grid]) -> list[frozenset[int]]:
    """The 3 x 3 tokens around each token (Eq. 7), cut off at the borders of its own tile.

    Tokens are numbered tile by tile and row by row.
    """
    found: list[frozenset[int]] = []
    for grid in grids:
        first = len(found)
        numbers = np.arange(grid.rows * grid.columns).reshape(grid.rows, grid.columns) + first
        for row in range(grid.rows):
            for column in range(grid.columns):
                rows, columns = (
                    slice(max(0, row - 1), row + 2),
                    slice(max(0, column - 1), column + 2),
                )
                found.append(frozenset(numbers[rows, columns].ravel().tolist()))
    return found
