"""What a model says at the places of a batch where its own objective asks it.

Of an autoregressive model those are all labelled tokens, each after the ones before it; of a masked
model the labelled tokens that a draw masks. Letters: N such places in all examples together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from disp_engine.attacks.objectives.masked import Noise, draw_noise, masked_logits
from disp_engine.errors import InvalidRequestError, SampleError
from disp_engine.interfaces import AutoregressiveModel, DiffusionModel, VisualModel
from disp_engine.records import IGNORE, Embedded


@dataclass(frozen=True)
class Places:
    """The places of one batch: by their noise in a masked model, None where there is none."""

    noise: Noise | None
    labels: Int[Tensor, " N"]


def places_of(model: VisualModel, batch: Sequence[Embedded], generator: torch.Generator) -> Places:
    """Choose the places; only a masked model draws for it."""
    if isinstance(model, AutoregressiveModel):
        return Places(None, torch.cat([_answer(example) for example in batch]))
    noise = draw_noise(batch, generator)
    return Places(noise, noise.labels[noise.real])


def logits_at(
    model: VisualModel, batch: Sequence[Embedded], places: Places
) -> Float[Tensor, "N V"]:
    """Logits at the places, of this batch or of one like it."""
    if places.noise is None:
        assert isinstance(model, AutoregressiveModel)
        return model.answer_logits(batch)
    if not isinstance(model, DiffusionModel):
        raise InvalidRequestError("objective: it is taken at masks, which this family has none of.")
    return masked_logits(model, batch, places.noise)[places.noise.real]


def _answer(example: Embedded) -> Int[Tensor, " _"]:
    if example.labels is None:
        raise SampleError("A training example needs labels.")
    later = example.labels[1:]
    return later[later != IGNORE]
