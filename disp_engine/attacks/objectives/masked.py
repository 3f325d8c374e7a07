"""What the model says at the masked positions of a noised batch.

Letters: B examples, R masked positions of the widest, V vocabulary, K kept logits, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from disp_engine.diffusion.forward import mask_tokens
from disp_engine.errors import InvalidRequestError, SampleError
from disp_engine.interfaces import DiffusionModel, MaskedDenoiser, VisualModel
from disp_engine.records import IGNORE, Embedded, Tokens

KEPT = 32
"""Largest logits of a position of which its expected embedding is made."""

AT_ONCE = 256
"""Tokens embedded at a time, well within any model's longest prompt."""


@dataclass(frozen=True)
class Noise:
    """Which labelled positions are masked: `rows` [B R], padded where `real` is False."""

    rows: Int[Tensor, "B R"]
    real: Bool[Tensor, "B R"]
    labels: Int[Tensor, "B R"]


def draw_noise(batch: Sequence[Embedded], generator: torch.Generator) -> Noise:
    """Mask labelled positions by the forward process (Eq. 1), at least one of each example."""
    places, targets = [], []
    for example in batch:
        labels = example.labels
        if labels is None:
            raise SampleError("A training example needs labels.")
        labelled = (labels != IGNORE).nonzero()[:, 0]
        t = torch.rand(1, generator=generator)
        u = torch.rand(1, len(labelled), generator=generator)
        masked = mask_tokens(torch.ones(1, len(labelled), dtype=torch.bool), t, u).masked[0]
        masked[int(u[0].argmin())] = True
        chosen = labelled[masked.to(labelled.device)]
        places.append(chosen)
        targets.append(labels[chosen])
    real = pad_sequence([torch.ones_like(p, dtype=torch.bool) for p in places], batch_first=True)
    return Noise(
        pad_sequence(places, batch_first=True), real, pad_sequence(targets, batch_first=True)
    )


def masked_logits(
    model: DiffusionModel, batch: Sequence[Embedded], noise: Noise
) -> Float[Tensor, "B R V"]:
    """Logits at the masked positions, each example padded on the right."""
    if not isinstance(model, MaskedDenoiser):
        raise InvalidRequestError("objective: it is taken at masks, which this family has none of.")
    lengths = torch.tensor([len(example.embeddings) for example in batch])
    canvas = pad_sequence([example.embeddings for example in batch], batch_first=True)
    hidden = torch.zeros(canvas.shape[:2], dtype=torch.bool, device=canvas.device)
    for row, (places, real) in enumerate(zip(noise.rows, noise.real, strict=True)):
        hidden[row, places[real]] = True
    noisy = torch.where(hidden[:, :, None], model.mask_embedding.detach(), canvas)
    attended = (torch.arange(canvas.shape[1]) < lengths[:, None]).to(canvas.device)
    return model.logits(noisy, noise.rows, attended).float()


def expected_embeddings(model: VisualModel, logits: Float[Tensor, "*S V"]) -> Float[Tensor, "*S D"]:
    """sum_k p_k E[k] over the KEPT most likely tokens."""
    kept = logits.topk(min(KEPT, logits.shape[-1]), dim=-1)
    words = word_embeddings(model, kept.indices)
    return (kept.values.softmax(dim=-1)[..., None] * words).sum(dim=-2)


def word_embeddings(model: VisualModel, ids: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
    """Embeddings of token ids, through the adapter's own verb."""
    different, places = torch.unique(ids, return_inverse=True)
    rows = [model.embed(Tokens(part.cpu()), []).embeddings for part in different.split(AT_ONCE)]
    return torch.cat(rows).detach().float()[places]
