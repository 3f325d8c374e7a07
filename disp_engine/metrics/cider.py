"""CIDEr-D of captions against references (Vedantam et al., CVPR 2015), by pycocoevalcap.

The library's own tokenizer runs Java; here words are lower-cased runs of letters and digits, so
values differ a little from those of papers that used it. It comes with the extra `bench`.
"""

import re
from collections.abc import Sequence

from disp_engine.errors import InvalidRequestError


def cider(responses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus CIDEr-D, 10 for perfect captions of a varied corpus; at least two items."""
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    if len(responses) != len(references) or len(responses) < 2:
        raise InvalidRequestError("CIDEr needs two items or more, each with its references.")
    scorer = CiderScorer(n=4, sigma=6.0)
    for response, wanted in zip(responses, references, strict=True):
        scorer += (plain_words(response), [plain_words(text) for text in wanted])
    score, _ = scorer.compute_score()
    return float(score)


def plain_words(text: str) -> str:
    """Lower-cased words with one space between."""
    return " ".join(re.findall(r"\w+", text.lower()))
