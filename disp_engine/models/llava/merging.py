"""Pictures among the words: a text's image tokens give way to visual tokens."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from disp_engine.errors import SampleError
from disp_engine.records import IGNORE, IMAGE_TOKEN, Embedded, Grid, Tokens

Embedding = Callable[[Int[Tensor, " T"]], Float[Tensor, "T D"]]


def put_in(
    pictures: Sequence[Float[Tensor, "_ D"]],
    grids: Sequence[Sequence[Grid]],
    tokens: Tokens,
    embedding: Embedding,
) -> Embedded:
    """Put each picture's visual tokens in place of its image token; they bear no label.

    Raises SampleError if the text has more or fewer image tokens than there are pictures.
    """
    marks = (tokens.ids == IMAGE_TOKEN).nonzero()[:, 0].tolist()
    if len(marks) != len(pictures):
        raise SampleError(f"The text has {len(marks)} <image> for {len(pictures)} pictures.")
    labels = torch.full_like(tokens.ids, IGNORE) if tokens.labels is None else tokens.labels
    rows: list[Tensor] = []
    targets: list[Tensor] = []
    spans: list[tuple[int, int]] = []
    begin = shift = 0
    for mark, picture in zip(marks, pictures, strict=True):
        rows += [embedding(tokens.ids[begin:mark]), picture]
        targets += [labels[begin:mark], labels.new_full((len(picture),), IGNORE)]
        spans.append((mark + shift, mark + shift + len(picture)))
        begin, shift = mark + 1, shift + len(picture) - 1
    merged = torch.cat([*rows, embedding(tokens.ids[begin:])])
    placed = tuple(
        grid.moved(start) for (start, _), tiles in zip(spans, grids, strict=True) for grid in tiles
    )
    wanted = None if tokens.labels is None else torch.cat([*targets, labels[begin:]])
    moved = None if wanted is None else wanted.to(merged.device)
    return Embedded(merged, tuple(spans), moved, grids=placed)


def cut(merged: Embedded, longest: int) -> Embedded:
    """The first `longest` positions."""
    if len(merged.embeddings) <= longest:
        return merged
    spans = tuple((start, min(end, longest)) for start, end in merged.spans if start < longest)
    labels = None if merged.labels is None else merged.labels[:longest]
    return Embedded(merged.embeddings[:longest], spans, labels)
