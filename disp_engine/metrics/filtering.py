"""How well a filter found the poisoned samples."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from disp_engine.metrics.rate import Rate


@dataclass(frozen=True)
class FilterQuality:
    """Precision over the removed samples, recall over the poisoned ones; F1 None without both."""

    precision: Rate
    recall: Rate

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two; 0 when a filter removed only clean samples."""
        named, hits = self.precision.scored + self.recall.scored, self.recall.successes
        return 2 * hits / named if self.precision.scored and self.recall.scored else None

    def to_json(self) -> dict[str, Any]:
        """Both rates with their counts, and F1."""
        return {
            "precision": self.precision.to_json(),
            "recall": self.recall.to_json(),
            "f1": self.f1,
        }


def filter_quality(removed: Collection[str], poisoned: Collection[str]) -> FilterQuality:
    """Compare ids that a filter removed with those that were poisoned."""
    hits = len(set(removed) & set(poisoned))
    return FilterQuality(Rate(hits, len(set(removed))), Rate(hits, len(set(poisoned))))
