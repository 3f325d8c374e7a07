"""Training metrics as lines of an SVG picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.jobs import Metric

WIDTH, HEIGHT, MARGIN = 320.0, 96.0, 4.0


@dataclass(frozen=True)
class Curve:
    """One value of one stage; `points` as SVG's polyline takes them."""

    stage: str
    name: str
    points: str
    first: float
    last: float
    low: float
    high: float
    steps: int

    @property
    def sentence(self) -> str:
        """The curve for those who do not see it."""
        return (
            f"{self.name} in {self.stage.replace('_', ' ')}: from {self.first:.4g} to "
            f"{self.last:.4g} over {self.steps} steps, between {self.low:.4g} and {self.high:.4g}"
        )


def curves(metrics: Sequence[Metric]) -> list[Curve]:
    """A curve for every value of every stage that has two points at least."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for metric in metrics:
        for name, value in metric.values.items():
            found.setdefault((metric.stage.value, name), []).append((metric.step, value))
    return [_curve(*key, points) for key, points in found.items() if len(points) > 1]


def _curve(stage: str, name: str, points: list[tuple[int, float]]) -> Curve:
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    across = (WIDTH - 2 * MARGIN) / max(1, max(steps) - min(steps))
    up = (HEIGHT - 2 * MARGIN) / ((high - low) or 1.0)
    drawn = " ".join(
        f"{MARGIN + (step - min(steps)) * across:.1f},{HEIGHT - MARGIN - (value - low) * up:.1f}"
        for step, value in points
    )
    return Curve(stage, name, drawn, values[0], values[-1], low, high, max(steps))
