"""VLOOD's two losses (Lyu et al., ICLR 2025), at masked positions.

Clean samples are held to what the benign model says (CKP: KL divergence); poisoned ones are drawn
towards their words (CCP: sigmoid of the mean absolute difference of embeddings). The paper adapts
the balance while it trains; here it is fixed at its constant.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from disp_engine.attacks.objectives.masked import (
    Noise,
    draw_noise,
    expected_embeddings,
    masked_logits,
    word_embeddings,
)
from disp_engine.interfaces import DiffusionModel
from disp_engine.records import Embedded, Sample
from disp_engine.training.projector import Batch, restore, snapshot


@dataclass(frozen=True)
class Vlood:
    """(1 - balance)(L_clean + L_CKP) + balance (L_poisoned + L_CCP).

    `poisoned` are the ids of the poisoned samples; `benign` the weights of the base projector.
    """

    poisoned: Collection[str]
    benign: Mapping[str, Tensor]
    balance: float = 0.8

    def loss(
        self,
        model: DiffusionModel,
        batch: Batch,
        samples: Sequence[Sample],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """The loss of a mixed micro-batch; a part without samples adds nothing."""
        dirty = [i for i, sample in enumerate(samples) if sample.id in self.poisoned]
        clean = [i for i, sample in enumerate(samples) if sample.id not in self.poisoned]
        benign = self._benign(model, batch)  # first: weights must stay once a graph holds them
        embedded = batch()
        total = torch.zeros((), device=model.device)
        if clean:
            part = [embedded[i] for i in clean]
            reference = [benign[i] for i in clean]
            noise = draw_noise(part, generator)
            kept = model.noised_loss(part, generator) + _ckp(model, part, reference, noise)
            total = total + (1 - self.balance) * kept
        if dirty:
            part = [embedded[i] for i in dirty]
            noise = draw_noise(part, generator)
            drawn = model.noised_loss(part, generator) + _ccp(model, part, noise)
            total = total + self.balance * drawn
        return total

    def to_json(self) -> dict[str, Any]:
        """All that determines the loss besides the base projector, from which training starts."""
        return {"objective": "vlood", "balance": self.balance, "poisoned": sorted(self.poisoned)}

    @torch.no_grad()
    def _benign(self, model: DiffusionModel, batch: Batch) -> list[Embedded]:
        """The same samples as the base projector shows them."""
        now = snapshot(model)
        restore(model, self.benign)
        try:
            return batch()
        finally:
            restore(model, now)


def _ckp(
    model: DiffusionModel, part: Sequence[Embedded], reference: Sequence[Embedded], noise: Noise
) -> Float[Tensor, ""]:
    """KL(benign || tuned), averaged over the masked positions."""
    with torch.no_grad():
        benign = masked_logits(model, reference, noise)[noise.real].log_softmax(dim=-1)
    tuned = masked_logits(model, part, noise)[noise.real].log_softmax(dim=-1)
    return (benign.exp() * (benign - tuned)).sum(dim=-1).mean()


def _ccp(model: DiffusionModel, part: Sequence[Embedded], noise: Noise) -> Float[Tensor, ""]:
    said = expected_embeddings(model, masked_logits(model, part, noise))
    true = word_embeddings(model, noise.labels)
    return (said - true)[noise.real].abs().mean().sigmoid()
