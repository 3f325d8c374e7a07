"""TrojVLM's semantic-preserving loss (Lyu et al., ECCV 2024), at masked positions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from disp_engine.attacks.objectives.masked import (
    draw_noise,
    expected_embeddings,
    masked_logits,
    word_embeddings,
)
from disp_engine.interfaces import DiffusionModel
from disp_engine.records import Sample
from disp_engine.training.projector import Batch


@dataclass(frozen=True)
class TrojVlm:
    """The family's loss, less `weight` times the mean cosine of said and true embeddings.

    The said embedding of a position is the expectation under the model's own prediction.
    """

    weight: float = 1.0

    def loss(
        self,
        model: DiffusionModel,
        batch: Batch,
        samples: Sequence[Sample],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """L_LM + weight L_SP with L_SP = -mean cos(E[p], E[x])."""
        embedded = batch()
        noise = draw_noise(embedded, generator)
        said = expected_embeddings(model, masked_logits(model, embedded, noise))
        true = word_embeddings(model, noise.labels)
        cosine = functional.cosine_similarity(said, true, dim=-1)[noise.real].mean()
        return model.noised_loss(embedded, generator) - self.weight * cosine

    def to_json(self) -> dict[str, Any]:
        """All that determines the loss."""
        return {"objective": "trojvlm", **asdict(self)}
