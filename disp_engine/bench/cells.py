"""One cell of a table: an attack, a defence against it, and what is varied besides."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from disp_engine.attacks.settings import AttackSettings

DEFENCES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "random_drop": ("random_drop", {}),
    "pruning": ("pruning", {}),
    "data_filtering": ("data_filtering", {}),
    "bye": ("bye", {}),
    "clean_subset": ("clean_subset", {}),
    "disp": ("disp", {}),
    "disp_random_mask": ("disp", {"masking": "random"}),
    "disp_no_mask": ("disp", {"masking": "none"}),
    "disp_sufficiency": ("disp", {"score": "sufficiency"}),
    "disp_text_mask": ("disp", {"text_mask_ratio": 0.3}),
}
"""Names of rows to the defence behind them; `clean` and `none` are no defence."""
ORACLES = ("data_filtering", "clean_subset")


@dataclass(frozen=True)
class Cell:
    """What is measured in one row.

    `defence` is `clean` (tuned on data that were never poisoned), `none`, or one of DEFENCES.
    `mask_ratio` masks at inference, without any repair (Figure 2); `objective` names the loss of
    an attacker who controls the training; `measure` adds the runs of a dual trigger's parts, or
    clean performance by kind of question, or how well detection found the poisoned samples; with
    `verdict` nothing but the verdict is. `draw` tells cells apart that differ in nothing but their
    data.
    """

    table: str
    attack: AttackSettings
    defence: str
    start: Literal["compromised", "base"] = "compromised"
    mask_ratio: float | None = None
    objective: Literal["trojvlm", "vlood"] | None = None
    measure: Literal["modality", "kinds", "detection", "verdict"] | None = None
    draw: int = 0

    @property
    def case(self) -> tuple[str, str, float, str | None]:
        """The attack as rows name it; rows of one case share their undefended model."""
        attack = self.attack
        return attack.label, attack.target, attack.rate, self.objective

    def to_json(self) -> dict[str, Any]:
        """All that tells this cell from another one."""
        return asdict(self)


@dataclass(frozen=True)
class Size:
    """How large the cells are: training samples, items of each test set, settings of all runs."""

    samples: int = 1000
    test: int = 200
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


FULL = Size()
QUICK = Size(samples=48, test=8, hyperparameters={"epochs": 1, "retrain_epochs": 1})
"""Proves that every cell runs; its numbers mean nothing."""
QUICK_CELLS: Mapping[str, int] = {"detection": 4, "recovery": 2, "false_alarms": 2}
"""How many cells a quick run has, of tables whose cells are many and alike."""
