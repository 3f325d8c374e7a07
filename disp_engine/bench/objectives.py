"""The losses of attackers who control the tuning, by the names that tables have for them."""

from collections.abc import Collection, Mapping
from typing import Literal

from torch import Tensor

from disp_engine.attacks.objectives.trojvlm import TrojVlm
from disp_engine.attacks.objectives.vlood import Vlood
from disp_engine.training.projector import Objective

Name = Literal["trojvlm", "vlood"]
OBJECTIVES: tuple[Name, ...] = ("trojvlm", "vlood")


def objective_of(
    name: Name | None, poisoned: Collection[str], benign: Mapping[str, Tensor]
) -> Objective | None:
    """The loss of a name; the attacker knows what is poisoned and the base projector."""
    match name:
        case "trojvlm":
            return TrojVlm()
        case "vlood":
            return Vlood(poisoned, benign)
        case None:
            return None
