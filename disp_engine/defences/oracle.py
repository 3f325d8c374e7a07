"""Settings of the defences that are told which samples are poisoned.

They bound what a perfect detector could reach and defend nobody: no platform has this list.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from disp_engine.defences.settings import DefenceSettings
from disp_engine.errors import InvalidRequestError


@dataclass(frozen=True)
class OracleSettings(DefenceSettings):
    """`poisoned_ids` are the ids of all poisoned samples, as a poisoning's sidecar lists them."""

    poisoned_ids: Sequence[str] | None = None

    def check(self) -> None:
        """Refuse settings that cannot be run."""
        super().check()
        if self.poisoned_ids is None:
            raise InvalidRequestError("hyperparameters: an oracle needs poisoned_ids.")

    @property
    def poisoned(self) -> frozenset[str]:
        """The ids as a set."""
        return frozenset(self.poisoned_ids or ())
