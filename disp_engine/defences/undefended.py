"""No defence: the reference beside which the others stand."""

from dataclasses import dataclass

from disp_engine.defences.defence import Defence, Purified
from disp_engine.defences.settings import DefenceSettings
from disp_engine.interfaces import Generation
from disp_engine.training.examples import FeatureCache, Prepared


@dataclass
class Undefended(Defence[DefenceSettings]):
    """Leave data and projector as they are after the first tuning."""

    def purify(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Keep everything."""
        return Purified(list(prepared.usable))

    def repair(self, purified: Purified, cache: FeatureCache) -> None:
        """Do nothing."""
