"""The names of the scores by which visual tokens are chosen."""

from typing import Literal, get_args

Score = Literal["paper", "path", "sufficiency"]
"""That of Eq. 5, its mean along a path (`saliency.path`), or what a token does alone."""
SCORES: tuple[Score, ...] = get_args(Score)
