"""PurMM as a job: how well it guards the model that is tuned on the suspect data.

Paper: Jiang et al., AAAI 2026. What defeats it: see `disp_engine/guards/purmm.py`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from disp_engine.defences.guarding import Guarding, GuardingSettings
from disp_engine.defences.settings import DefenceSettings
from disp_engine.guards.guard import Guard
from disp_engine.guards.purmm import PurMMSettings


@dataclass(frozen=True)
class PurMMJobSettings(GuardingSettings):
    """What the guard can be told; see `PurMMSettings`."""

    rows: str = "answer"
    clustering: str = "kmeans"
    reference: str = "deep_half"
    contrast: float | None = None
    rounds: int = 1

    def check(self) -> None:
        """Refuse settings that cannot be run."""
        super().check()
        self.of_guard.check()

    @property
    def of_guard(self) -> PurMMSettings:
        """The guard's own settings."""
        return PurMMSettings(self.rows, self.clustering, self.reference, self.contrast, self.rounds)


@dataclass
class PurMMJob(Guarding[PurMMJobSettings]):
    """Guard with PurMM, which needs no calibration."""

    settings_type: ClassVar[type[DefenceSettings]] = PurMMJobSettings

    def guard(self) -> tuple[Guard, Path | None]:
        """PurMM of the tuned model."""
        return self.settings.of_guard.build(self.causal), None
