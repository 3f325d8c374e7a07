"""Random zeroing: the lower bound of every guard that removes visual tokens (PurMM, B.2).

What defeats it: nearly everything; a trigger survives with the share of tokens that stay.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disp_engine.errors import InvalidRequestError
from disp_engine.guards.guard import (
    Guard,
    Judged,
    Ruling,
    Verdict,
    cells,
    visual_tokens,
    zeroed,
)
from disp_engine.interfaces import VisualModel
from disp_engine.records import Embedded


@dataclass(frozen=True)
class RandomTokensSettings:
    """The share of visual tokens that is zeroed, and the seed of the draw."""

    share: float = 0.2
    seed: int = 0

    def build(self, model: VisualModel) -> "RandomTokens":
        """The guard of a model."""
        if not 0 <= self.share <= 1:
            raise InvalidRequestError("guard: share must lie in [0, 1].")
        return RandomTokens(model, self)


class RandomTokens(Guard):
    """Zeroes visual tokens at random; the same question loses the same ones."""

    def __init__(self, model: VisualModel, settings: RandomTokensSettings) -> None:
        super().__init__(model)
        self.settings = settings

    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Zero each picture's share."""
        return Judged(tuple(self._ruling(prompt) for prompt in prompts))

    def _ruling(self, prompt: Embedded) -> Ruling:
        tokens = visual_tokens(prompt)
        content = prompt.embeddings[tokens].float().cpu().numpy().tobytes()
        rng = np.random.default_rng([self.settings.seed, zlib.crc32(content)])
        count = int(len(tokens) * self.settings.share)
        removed = sorted(rng.choice(tokens, count, replace=False).tolist())
        return Ruling(Verdict(removed=cells(prompt, removed)), zeroed(prompt, removed))
