"""VLOOD's two losses (Lyu et al., ICLR 2025), where the own loss is taken.

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

from disp_engine.attacks.objectives.masked import expected_embeddings, word_embeddings
from disp_engine.attacks.objectives.spoken import Places, logits_at, places_of
from disp_engine.interfaces import VisualModel
from disp_engine.records import Embedded, Sample
from disp_engine.training.projector import Batch, own_loss, restore, snapshot


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
        model: VisualModel,
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
            places = places_of(model, part, generator)
            kept = own_loss(model, part, generator) + _ckp(model, part, reference, places)
            total = total + (1 - self.balance) * kept
        if dirty:
            part = [embedded[i] for i in dirty]
            places = places_of(model, part, generator)
            drawn = own_loss(model, part, generator) + _ccp(model, part, places)
            total = total + self.balance * drawn
        return total

    def to_json(self) -> dict[str, Any]:
        """All that determines the loss besides the base projector, from which training starts."""
        return {"objective": "vlood", "balance": self.balance, "poisoned": sorted(self.poisoned)}

    @torch.no_grad()
    def _benign(self, model: VisualModel, batch: Batch) -> list[Embedded]:
        """The same samples as the base projector shows them."""
        now = snapshot(model)
        restore(model, self.benign)
        try:
            return batch()
        finally:
            restore(model, now)


def _ckp(
    model: VisualModel, part: Sequence[Embedded], reference: Sequence[Embedded], places: Places
) -> Float[Tensor, ""]:
    """KL(benign || tuned), averaged over the places."""
    with torch.no_grad():
        benign = logits_at(model, reference, places).log_softmax(dim=-1)
    tuned = logits_at(model, part, places).log_softmax(dim=-1)
    return (benign.exp() * (benign - tuned)).sum(dim=-1).mean()


def _ccp(model: VisualModel, part: Sequence[Embedded], places: Places) -> Float[Tensor, ""]:
    said = expected_embeddings(model, logits_at(model, part, places))
    true = word_embeddings(model, places.labels)
    return (said - true).abs().mean().sigmoid()
