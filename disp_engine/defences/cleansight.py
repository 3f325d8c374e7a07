"""CleanSight as a job: calibrated on a part of the clean set, measured on the rest.

Paper: arXiv 2603.12989. The calibration is an artifact; it is good for the job's own projector
and for no other. What defeats it: see `disp_engine/guards/cleansight.py`.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from disp_engine.data.dataset import Dataset
from disp_engine.defences.calibration import calibrated, divided
from disp_engine.defences.guarding import Guarding, GuardingSettings
from disp_engine.defences.settings import DefenceSettings
from disp_engine.errors import InvalidRequestError
from disp_engine.guards.cleansight import CalibrationSettings
from disp_engine.guards.guard import Guard
from disp_engine.training.examples import FeatureCache, Prepared


@dataclass(frozen=True)
class CleanSightJobSettings(GuardingSettings):
    """See `CalibrationSettings`; `calibration_share` of the clean set is learnt from."""

    first_layer: int | None = None
    last_layer: int | None = None
    percentile: float = 99.0
    tau: float | None = None
    calibration_share: float = 0.5

    def check(self) -> None:
        """Refuse settings that cannot be run."""
        super().check()
        if not 0 < self.calibration_share < 1:
            raise InvalidRequestError("hyperparameters: calibration_share must lie in (0, 1).")
        if not 0 <= self.percentile <= 100:
            raise InvalidRequestError("hyperparameters: percentile must lie in [0, 100].")

    @property
    def of_guard(self) -> CalibrationSettings:
        """The calibration's own settings."""
        return CalibrationSettings(self.first_layer, self.last_layer, self.percentile, self.tau)


@dataclass
class CleanSightJob(Guarding[CleanSightJobSettings]):
    """Guard with CleanSight."""

    settings_type: ClassVar[type[DefenceSettings]] = CleanSightJobSettings
    reference: Dataset = field(init=False)

    def prepare(self) -> tuple[FeatureCache, Prepared]:
        """Set the calibration's part of the clean set aside: nothing is measured on it."""
        found = super().prepare()
        self.settings.of_guard.layers(self.causal.depth)
        share = self.settings.calibration_share
        self.reference, rest = divided(self.sets.clean, share, self.seed)
        self.sets = replace(self.sets, clean=rest)
        return found

    def guard(self) -> tuple[Guard, Path | None]:
        """CleanSight of the tuned model."""
        return calibrated(self, self.causal, self.reference, self.settings.of_guard)
