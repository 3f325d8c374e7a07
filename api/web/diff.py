"""The words that differ between two texts."""

import difflib
import re
from typing import NamedTuple

LONGEST = 2000
"""Words beyond which two texts are shown side by side without a comparison."""


class Piece(NamedTuple):
    """Some words of a text; `changed` ones are not in the other."""

    text: str
    changed: bool


def compare(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, with their white space."""
    old, new = _words(before), _words(after)
    if max(len(old), len(new)) > LONGEST:
        return [Piece(before, False)], [Piece(after, False)]
    left: list[Piece] = []
    right: list[Piece] = []
    a, b = ([word.strip() for word in words] for words in (old, new))
    matcher = difflib.SequenceMatcher(a=a, b=b, autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if i < j:
            left.append(Piece("".join(old[i:j]), kind != "equal"))
        if k < m:
            right.append(Piece("".join(new[k:m]), kind != "equal"))
    return left, right


def _words(text: str) -> list[str]:
    """Words with the white space behind them."""
    return re.findall(r"\S+\s*|\s+", text)
