"""A share with its counts and its interval."""

import math
from dataclasses import asdict, dataclass
from typing import Any

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """`successes` of `scored`; `failed` could not be scored and count for neither side."""

    successes: int
    scored: int
    failed: int = 0

    @property
    def rate(self) -> float | None:
        """The share, or None when nothing was scored."""
        return self.successes / self.scored if self.scored else None

    @property
    def ci95(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval (Wilson 1927), which stays honest at 0 and at 1."""
        if not self.scored:
            return None
        n, p = self.scored, self.successes / self.scored
        centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
        return max(0.0, centre - half), min(1.0, centre + half)

    def to_json(self) -> dict[str, Any]:
        """The rate as the report holds it."""
        ci95 = self.ci95
        return asdict(self) | {"rate": self.rate, "ci95": list(ci95) if ci95 else None}
