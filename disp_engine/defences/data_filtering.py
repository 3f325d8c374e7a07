"""Data filtering by an oracle: every poisoned sample is known and removed (DiSP, section 4.2).

What defeats it: from the compromised projector, tuning on clean data alone does not unlearn what
the trigger does; DiSP's Tables 1 and 2 only make sense with that start.
"""

from dataclasses import dataclass
from typing import ClassVar

from disp_engine.data.dataset import content_sha256
from disp_engine.defences.defence import Defence, Purified
from disp_engine.defences.oracle import OracleSettings
from disp_engine.defences.settings import DefenceSettings
from disp_engine.interfaces import Generation
from disp_engine.training.examples import FeatureCache, Prepared


@dataclass
class DataFiltering(Defence[OracleSettings]):
    """Keep what is not poisoned."""

    settings_type: ClassVar[type[DefenceSettings]] = OracleSettings

    def purify(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Remove the known samples."""
        poisoned = self.settings.poisoned
        data = content_sha256(prepared.usable)
        with self.stage("purify", self.inputs(data=data, poisoned=sorted(poisoned))) as stage:
            kept = [s for s in prepared.usable if s.id not in poisoned]
            stage.finish()
        removed = {s.id: "known to be poisoned" for s in prepared.usable if s.id in poisoned}
        return Purified(kept, removed=removed)
