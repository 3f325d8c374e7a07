"""How well a guard tells triggered questions from clean ones."""

from dataclasses import dataclass
from typing import Any

from disp_engine.metrics.rate import Rate


@dataclass(frozen=True)
class Detection:
    """AUROC of the scores, and the shares of triggered and of clean questions that are flagged."""

    auroc: float | None
    true_positives: Rate
    false_positives: Rate

    def to_json(self) -> dict[str, Any]:
        """The three as the report holds them."""
        return {
            "auroc": self.auroc,
            "true_positive_rate": self.true_positives.to_json(),
            "false_positive_rate": self.false_positives.to_json(),
        }
