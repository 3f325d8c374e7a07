"""How well a guard tells triggered questions from clean ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import rankdata

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


def auroc(triggered: Sequence[float], clean: Sequence[float]) -> float | None:
    """Chance that a triggered question scores above a clean one, ties counting half."""
    if not triggered or not clean:
        return None
    ranks = rankdata([*triggered, *clean])[: len(triggered)]
    above = float(ranks.sum()) - len(triggered) * (len(triggered) + 1) / 2
    return above / (len(triggered) * len(clean))
