"""TrojVLM's semantic-preserving loss (Lyu et al., ECCV 2024), where the own loss is taken."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from disp_engine.attacks.objectives.masked import expected_embeddings, word_embeddings
from disp_engine.attacks.objectives.spoken import logits_at, places_of
from disp_engine.interfaces import VisualModel
from disp_engine.records import Sample
from disp_engine.training.projector import Batch, own_loss


@dataclass(frozen=True)
class TrojVlm:
    """The family's loss, less `weight` times the mean cosine of said and true embeddings.

    The said embedding of a position is the expectation under the model's own prediction.
    """

    weight: float = 1.0

    def loss(
        self,
        model: VisualModel,
        batch: Batch,
        samples: Sequence[Sample],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """L_LM + weight L_SP with L_SP = -mean cos(E[p], E[x])."""
        embedded = batch()
        places = places_of(model, embedded, generator)
        said = expected_embeddings(model, logits_at(model, embedded, places))
        true = word_embeddings(model, places.labels)
        cosine = functional.cosine_similarity(said, true, dim=-1).mean()
        return own_loss(model, embedded, generator) - self.weight * cosine

    def to_json(self) -> dict[str, Any]:
        """All that determines the loss."""
        return {"objective": "trojvlm", **asdict(self)}
