"""Fine-tuning on a small subset that is known to be clean (the field's plain FT baseline).

What defeats it: few clean samples say nothing about the trigger.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from disp_engine.data.dataset import content_sha256
from disp_engine.defences.defence import Defence, Purified
from disp_engine.defences.oracle import OracleSettings
from disp_engine.defences.settings import DefenceSettings
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import Generation
from disp_engine.training.examples import FeatureCache, Prepared
from disp_engine.training.order import generator_for

STREAM = 201


@dataclass(frozen=True)
class CleanSubsetSettings(OracleSettings):
    """`clean_ratio` of the samples that are not poisoned are tuned on."""

    clean_ratio: float = 0.1

    def check(self) -> None:
        """Refuse settings that cannot be run."""
        super().check()
        if not 0 < self.clean_ratio <= 1:
            raise InvalidRequestError("hyperparameters: clean_ratio must lie in (0, 1].")


@dataclass
class CleanSubset(Defence[CleanSubsetSettings]):
    """Keep a random part of the clean samples."""

    settings_type: ClassVar[type[DefenceSettings]] = CleanSubsetSettings

    def purify(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Draw the subset from the run's seed; at least one sample."""
        poisoned = self.settings.poisoned
        clean = [i for i, s in enumerate(prepared.usable) if s.id not in poisoned]
        inputs = self.inputs(
            data=content_sha256(prepared.usable), poisoned=sorted(poisoned),
            ratio=self.settings.clean_ratio, seed=self.seed,
        )  # fmt: skip
        with self.stage("purify", inputs) as stage:
            count = max(1, math.floor(self.settings.clean_ratio * len(clean)))
            generator = generator_for(self.seed, 0, STREAM)
            drawn = torch.randperm(len(clean), generator=generator)[:count].tolist()
            stage.finish()
        chosen = {clean[i] for i in drawn}
        removed = {s.id: "not in the clean subset"
                   for i, s in enumerate(prepared.usable) if i not in chosen}  # fmt: skip
        return Purified([prepared.usable[i] for i in sorted(chosen)], removed=removed)
