"""What hides a visual token in a model that has no mask token: three candidates.

Masked diffusion hides a token as its own noise would: with the mask. Here the noise is a uniformly
random token, so the candidates are its expectation, the noise itself, and not to be read at all.
Letters: L positions, D width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from disp_engine.errors import InvalidRequestError

Hiding = Literal["mean_embedding", "random_tokens", "unread"]


@dataclass(frozen=True)
class GemmaSettings:
    """How visual tokens are hidden, and over how many random canvases saliency is averaged.

    `mean_embedding`: the mean of all scaled token embeddings, what the noise is on average;
    `random_tokens`: the embeddings of random tokens, the noise itself, drawn once from `seed`;
    `unread`: the token is dropped from what encoder and decoder attend to.
    """

    hiding: Hiding = "mean_embedding"
    canvases: int = 4
    seed: int = 0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "GemmaSettings":
        """Settings from what a run asks for, or say what is wrong with it."""
        try:
            settings = cls(**options)
        except TypeError as error:
            raise InvalidRequestError(f"model_options: {error}.") from error
        if settings.hiding not in get_args(Hiding):
            names = ", ".join(get_args(Hiding))
            raise InvalidRequestError(f"model_options: hiding must be one of {names}.")
        if not isinstance(settings.canvases, int) or settings.canvases < 1:
            raise InvalidRequestError("model_options: canvases must be a positive integer.")
        return settings


def stand_ins(
    settings: GemmaSettings, embedding: Float[Tensor, "V D"], length: int
) -> Float[Tensor, "L D"]:
    """What stands at each of `length` positions if it is hidden; `embedding` is not yet scaled."""
    scale = math.sqrt(embedding.shape[1])
    if settings.hiding == "mean_embedding":
        mean = embedding.mean(dim=0, dtype=torch.float32) * scale
        return mean.to(embedding.dtype).expand(length, -1)
    generator = torch.Generator().manual_seed(settings.seed)
    ids = torch.randint(len(embedding), (length,), generator=generator)
    return embedding[ids.to(embedding.device)] * scale


def hidden_rows(visual: Bool[Tensor, " L"], chosen: Bool[Tensor, " Lv"]) -> Bool[Tensor, " L"]:
    """Mark the chosen visual tokens, counted over all pictures, among all positions."""
    marks = torch.zeros_like(visual)
    marks[visual.nonzero()[:, 0][chosen.to(visual.device)]] = True
    return marks
