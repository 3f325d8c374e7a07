"""What a model says to prompts, whether it denoises its responses or says them token by token."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from disp_engine.errors import InvalidModelError
from disp_engine.interfaces import (
    AutoregressiveModel,
    DiffusionModel,
    Generation,
    Respondent,
    VisualModel,
)
from disp_engine.records import Embedded, Said


def respond(
    model: VisualModel, prompts: Sequence[Embedded], generation: Generation
) -> list[Int[Tensor, " _"]]:
    """One response to each prompt, whatever their lengths; ids up to the stop."""
    if isinstance(model, DiffusionModel):
        return model.denoise(prompts, generation)
    if isinstance(model, AutoregressiveModel):
        return plain_answers(model, prompts, generation.length)
    raise InvalidModelError("model: it gives no responses.")


def plain_answers(
    respondent: Respondent, prompts: Sequence[Embedded], length: int
) -> list[Int[Tensor, " _"]]:
    """Greedy answers of at most `length` tokens."""
    return collected(respondent.say(respondent.read(prompts), length), len(prompts))


def collected(steps: Iterator[Said], count: int) -> list[Int[Tensor, " _"]]:
    """The answers of `count` rows, each up to its end."""
    rows: list[list[Tensor]] = [[] for _ in range(count)]
    for said in steps:
        for row, alive in enumerate(said.alive.tolist()):
            if alive:
                rows[row].append(said.ids[row])
    return [torch.stack(row) if row else torch.zeros(0, dtype=torch.long) for row in rows]
