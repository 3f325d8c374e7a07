"""Magnitude pruning of the compromised projector (BackdoorLLM's baseline; DiSP, section 4.2).

DiSP says neither which modules it prunes nor whether one threshold serves all. Only the projector
is tuned on suspect data, so only the projector is pruned; `scope` decides the threshold. The data
stay as they are and nothing is tuned again.

What defeats it: a backdoor that does not live in small weights.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn
from torch.nn.utils import prune

from disp_engine.defences.defence import Defence, Purified
from disp_engine.defences.settings import DefenceSettings
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import Generation
from disp_engine.training.examples import FeatureCache, Prepared


@dataclass(frozen=True)
class PruningSettings(DefenceSettings):
    """Zero the `prune_ratio` of weights that are smallest, in each layer or over all layers."""

    prune_ratio: float = 0.3
    scope: Literal["global", "layer"] = "global"

    def check(self) -> None:
        """Refuse settings that cannot be run."""
        super().check()
        if not 0 <= self.prune_ratio < 1:
            raise InvalidRequestError("hyperparameters: prune_ratio must lie in [0, 1).")
        if self.scope not in ("global", "layer"):
            raise InvalidRequestError("hyperparameters: scope is global, layer.")
        if self.start != "compromised":
            raise InvalidRequestError("hyperparameters: pruning starts from `compromised`.")


@dataclass
class Pruning(Defence[PruningSettings]):
    """Prune instead of tuning."""

    settings_type: ClassVar[type[DefenceSettings]] = PruningSettings

    def purify(self, cache: FeatureCache, prepared: Prepared, generation: Generation) -> Purified:
        """Leave the data as they are."""
        return Purified(list(prepared.usable))

    def repair(self, purified: Purified, cache: FeatureCache) -> None:
        """Zero the smallest weights of the projector's linear layers."""
        with self.stage("retrain", self.inputs(prune=vars(self.settings)), kind="prune") as stage:
            prune_projector(self.model.projector, self.settings)
            stage.finish()


def prune_projector(projector: nn.Module, settings: PruningSettings) -> None:
    """Zero weights in place; biases stay."""
    weights = [(m, "weight") for m in projector.modules() if isinstance(m, nn.Linear)]
    groups = [weights] if settings.scope == "global" else [[weight] for weight in weights]
    for group in groups:
        prune.global_unstructured(group, prune.L1Unstructured, amount=settings.prune_ratio)
    for module, name in weights:
        prune.remove(module, name)  # type: ignore[no-untyped-call]
