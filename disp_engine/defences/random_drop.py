"""Random drop: tune again on a random part of the data (DiSP's and BYE's naive baseline).

What defeats it: anything; a share of the poison stays, and tuning on it unlearns nothing.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from disp_engine.data.dataset import content_sha256
from disp_engine.defences.defence import Defence, Purified
from disp_engine.defences.settings import DefenceSettings
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import Generation
from disp_engine.training.examples import FeatureCache, Prepared
from disp_engine.training.order import generator_for

STREAM = 200


@dataclass(frozen=True)
class RandomDropSettings(DefenceSettings):
    """`drop_ratio` of the samples leave the dataset."""

    drop_ratio: float = 0.2

    def check(self) -> None:
        """Refuse settings that cannot be run."""
        super().check()
        if not 0 <= self.drop_ratio < 1:
            raise InvalidRequestError("hyperparameters: drop_ratio must lie in [0, 1).")


@dataclass
class RandomDrop(Defence[RandomDropSettings]):
    """Drop samples by a draw from the run's seed."""

    settings_type: ClassVar[type[DefenceSettings]] = RandomDropSettings

    def purify(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Keep all but floor(ratio N) samples, in their order."""
        inputs = self.inputs(
            data=content_sha256(prepared.usable), ratio=self.settings.drop_ratio, seed=self.seed
        )
        with self.stage("purify", inputs) as stage:
            count = math.floor(self.settings.drop_ratio * len(prepared.usable))
            generator = generator_for(self.seed, 0, STREAM)
            drawn = torch.randperm(len(prepared.usable), generator=generator)[:count].tolist()
            stage.finish()
        dropped = {prepared.usable[i].id: "dropped at random" for i in drawn}
        return Purified([s for s in prepared.usable if s.id not in dropped], removed=dropped)
