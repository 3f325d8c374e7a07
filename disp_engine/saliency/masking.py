"""Which tokens are hidden, and the prompt with them hidden (Eqs. 9 and 10)."""

import math
from dataclasses import replace
from fractions import Fraction

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from disp_engine.records import Embedded


def most_salient(scores: Float[Tensor, " Lv"], ratio: float) -> Bool[Tensor, " Lv"]:
    """Mark the floor(ratio * Lv) tokens of highest score (Eq. 9); the first wins a tie."""
    count = math.floor(Fraction(str(ratio)) * len(scores))  # exact: 0.7 of 90 is 63
    chosen = torch.zeros(len(scores), dtype=torch.bool)
    chosen[scores.argsort(descending=True, stable=True)[:count]] = True
    return chosen


def at_random(tokens: int, ratio: float, generator: torch.Generator) -> Bool[Tensor, " Lv"]:
    """Mark as many tokens at random (the paper's ablation, section 4.5)."""
    return most_salient(torch.rand(tokens, generator=generator), ratio)


def hide_text(
    prompt: Embedded,
    ratio: float,
    mask_embedding: Float[Tensor, " D"],
    generator: torch.Generator,
) -> Embedded:
    """Replace floor(ratio * Lt) text tokens, drawn at random, by e_mask.

    Source: `prompt_mask_ratio_text` of the authors' code, which also draws from all of the prompt,
    the chat template's tokens among them, and whose default is 0.
    """
    text = (~prompt.visual()).nonzero()[:, 0]
    chosen = at_random(len(text), ratio, generator)
    embeddings = prompt.embeddings.clone()
    embeddings[text[chosen.to(text.device)]] = mask_embedding.to(embeddings.dtype)
    return replace(prompt, embeddings=embeddings)


def hide(
    prompt: Embedded, chosen: Bool[Tensor, " Lv"], mask_embedding: Float[Tensor, " D"]
) -> Embedded:
    """Replace the chosen visual tokens, counted over all pictures, by e_mask (Eq. 10)."""
    rows = prompt.visual().nonzero()[:, 0][chosen.to(prompt.embeddings.device)]
    embeddings = prompt.embeddings.clone()
    embeddings[rows] = mask_embedding.to(embeddings.dtype)
    return replace(prompt, embeddings=embeddings)
