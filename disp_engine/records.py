"""The nouns that travel between the parts of the engine."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from disp_engine.samples import Sample as Sample
from disp_engine.samples import Turn as Turn

IMAGE_TOKEN = -200
"""Id that stands for one picture in a row of token ids (LLaVA's IMAGE_TOKEN_INDEX)."""

IGNORE = -100
"""Label of a position that carries no target."""


@dataclass(frozen=True)
class VisualFeatures:
    """A picture after the frozen tower and before the projector.

    `tiles` [N P C]: features of each tile (first the whole picture); `size` is the original
    (width, height) in pixels, which the merge of the tiles needs; `as_list` is False when the
    picture was given as a plain tensor (no newline tokens then).
    """

    tiles: Float[Tensor, "N P C"]
    size: tuple[int, int]
    as_list: bool = True


@dataclass(frozen=True)
class Tokens:
    """A tokenised conversation: ids with IMAGE_TOKEN placeholders, and labels for training."""

    ids: Int[Tensor, " L"]
    labels: Int[Tensor, " L"] | None = None


@dataclass(frozen=True)
class Grid:
    """A tile of a picture: the token of row r and column c stands at `start + r * stride + c`."""

    start: int
    rows: int
    columns: int
    stride: int

    def moved(self, by: int) -> "Grid":
        """The same tile further on."""
        return replace(self, start=self.start + by)

    def tokens(self) -> list[int]:
        """Where the tile's tokens stand, row by row."""
        return [
            self.start + row * self.stride + column
            for row in range(self.rows)
            for column in range(self.columns)
        ]


@dataclass(frozen=True)
class Embedded:
    """A conversation as the language model reads it.

    `embeddings` [L D] text and visual tokens in order; `spans` the half-open interval of each
    picture's visual tokens; `labels` [L] follow the embeddings (IGNORE on visual tokens);
    `attended` [L] marks the rows that are read, None for all (a family may hide a token so).
    `grids` tell where the visual tokens stand in their pictures, for families that guards are for;
    `positions` [3 L] are those of a family that counts by time, row and column.
    """

    embeddings: Float[Tensor, "L D"]
    spans: tuple[tuple[int, int], ...]
    labels: Int[Tensor, " L"] | None = None
    attended: Bool[Tensor, " L"] | None = None
    grids: tuple[Grid, ...] = ()
    positions: Int[Tensor, "3 L"] | None = None

    def visual(self) -> Bool[Tensor, " L"]:
        """Mark the rows that are visual tokens."""
        rows = torch.zeros(len(self.embeddings), dtype=torch.bool, device=self.embeddings.device)
        for start, end in self.spans:
            rows[start:end] = True
        return rows


@dataclass(frozen=True)
class FirstStep:
    """The first denoising step of B responses as a function of what their prompts show.

    `logits` [B T V]: response rows, those of `starts` independent beginnings side by side;
    `shown` [B L C]: what stands at each position (prompts begin at 0), a leaf of the graph;
    `hidden` [B L C]: what would stand there if the position were hidden.
    """

    logits: Float[Tensor, "B T V"]
    shown: Float[Tensor, "B L C"]
    hidden: Float[Tensor, "B L C"]
    starts: int = 1


@dataclass
class Reading:
    """What a causal model has read of B rows, and what it makes of it.

    Rows are padded on the left: `pads` counts the columns before each prompt, so that position p
    of prompt b is column `pads[b] + p`. `attended` marks the columns that may be read, `following`
    is the position of the next token, `logits` are those of the next token.
    """

    cache: Any = field(repr=False)
    pads: tuple[int, ...]
    attended: Bool[Tensor, "B K"]
    following: Int[Tensor, " B"]
    logits: Float[Tensor, "B V"]


@dataclass(frozen=True)
class Said:
    """One step of B answers: the token of each, and which of the answers still go on."""

    ids: Int[Tensor, " B"]
    alive: Bool[Tensor, " B"]
