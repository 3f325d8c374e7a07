"""SparseVLM's pruning of visual tokens (Zhang et al., ICML 2025), in one step: derived.

Text tokens that the picture concerns rate the visual tokens: of those, the ones that an early layer
attends to least are hidden from that layer on. The authors prune at three layers and merge a part
of what they prune; neither is done here. It was made for speed; as a guard it is a baseline.

What defeats it: a trigger draws attention, so its tokens are the last to be pruned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from disp_engine.errors import InvalidRequestError
from disp_engine.guards.guard import Guard, Judged, Ruling, Verdict, cells, visual_tokens
from disp_engine.guards.respondent import refuse_derived
from disp_engine.interfaces import VisualModel
from disp_engine.records import Embedded

LAYER_OF_32 = 2


@dataclass(frozen=True)
class SparseVlmSettings:
    """The share of visual tokens that is kept: 192 of 576 in the authors' mildest setting."""

    kept: float = 1 / 3

    def build(self, model: VisualModel) -> "SparseVlm":
        """The guard of a model."""
        if not 0 < self.kept <= 1:
            raise InvalidRequestError("guard: kept must lie in (0, 1].")
        refuse_derived(model, "sparse_vlm")
        return SparseVlm(model, self)


class SparseVlm(Guard):
    """Hides the visual tokens that the question looks at least."""

    as_published: ClassVar[bool] = False

    def __init__(self, model: VisualModel, settings: SparseVlmSettings) -> None:
        super().__init__(model)
        self.settings = settings
        self.first_hidden_layer = round(self.respondent.depth * LAYER_OF_32 / 32)

    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Read each prompt once to rate its visual tokens."""
        return Judged(tuple(self._ruling(prompt) for prompt in prompts))

    def _ruling(self, prompt: Embedded) -> Ruling:
        tokens = visual_tokens(prompt)
        look = RatersRows(self.first_hidden_layer, raters(prompt))
        with self.respondent.watching(look):
            self.respondent.read([prompt])
        kept = max(1, round(len(tokens) * self.settings.kept))
        order = look.rating[tokens].argsort(descending=True, stable=True).tolist()
        hidden = sorted(tokens[number] for number in order[kept:])
        return Ruling(Verdict(removed=cells(prompt, hidden)), prompt, hidden=tuple(hidden))


class RatersRows:
    """Attention that the raters' rows of one layer pay to each column, heads averaged."""

    rows: Literal["last", "all"] = "all"

    def __init__(self, layer: int, chosen: Bool[Tensor, " L"]) -> None:
        self.layers, self.chosen = frozenset({layer}), chosen
        self.rating: Float[Tensor, " L"] = torch.zeros(len(chosen), device=chosen.device)

    def see(self, layer: int, first: int, weights: Float[Tensor, "1 H R L"]) -> None:
        """Add the raters among these rows."""
        mine = self.chosen[first : first + weights.shape[2]]
        self.rating = self.rating + weights[0].mean(dim=0)[mine].sum(dim=0)


def raters(prompt: Embedded) -> Bool[Tensor, " L"]:
    """Text tokens behind the picture that are more relevant to it than their average.

    Relevance is softmax(V T') over the texts, averaged over visual tokens.
    """
    end = prompt.spans[-1][1]
    visual, text = prompt.embeddings[visual_tokens(prompt)].float(), prompt.embeddings[end:].float()
    relevance = (visual @ text.T).softmax(dim=-1).mean(dim=0)
    chosen = torch.zeros(len(prompt.embeddings), dtype=torch.bool, device=text.device)
    chosen[end:] = relevance >= relevance.mean()
    return chosen
