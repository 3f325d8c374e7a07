"""Samples as the readers make them; this module imports no torch, so that data are judged first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

IMAGE_MARK = "<image>"
"""Stands in a question for one picture."""


@dataclass(frozen=True)
class Turn:
    """One message of a LLaVA conversation; `<image>` in the text stands for one picture."""

    role: Literal["human", "gpt"]
    text: str


@dataclass(frozen=True)
class Sample:
    """One record of a LLaVA-format dataset.

    `images` are keys into the dataset's image store, in the order of the `<image>` marks;
    `record` is the untouched JSON object, from which the purified record is written.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    record: Mapping[str, Any] = field(repr=False, default_factory=dict)

    def with_responses(self, responses: Sequence[str]) -> "Sample":
        """The sample with other assistant turns."""
        answers = [Turn("gpt", response) for response in responses]
        turns = [t for pair in zip(self.turns[::2], answers, strict=True) for t in pair]
        return replace(self, turns=tuple(turns))
