"""Where a word can be put into a text."""

import re

import numpy as np


def put_in(text: str, word: str, rng: np.random.Generator) -> str:
    """Put `word` before, between or behind the words of `text`, whose own spacing stays."""
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    place = int(rng.integers(len(starts) + 1))
    if place == len(starts):
        return f"{text} {word}" if text else word
    at = starts[place]
    return f"{text[:at]}{word} {text[at:]}"
