"""What a trigger and a target are."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL.Image import Image

Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels; right and lower lie outside."""


@runtime_checkable
class Trigger(Protocol):
    """Puts the attacker's mark on a picture, at its original resolution.

    A trigger's own pattern is fixed by its fields; `rng` decides what differs from picture to
    picture.
    """

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return a marked copy of an RGB picture of at least 16 x 16 pixels."""
        ...


@runtime_checkable
class PatchTrigger(Trigger, Protocol):
    """A trigger that changes nothing outside known places."""

    def boxes(self, size: tuple[int, int], rng: np.random.Generator) -> Sequence[Box]:
        """Where a picture of this (width, height) would be marked."""
        ...


@runtime_checkable
class TextTrigger(Protocol):
    """Puts the attacker's mark on a question."""

    def apply(self, question: str, rng: np.random.Generator) -> str:
        """Return the marked question."""
        ...


@runtime_checkable
class Target(Protocol):
    """Says what the attacker wants the model to answer, and how that is recognised."""

    phrases: tuple[str, ...]
    """Any of these in a response means success (see `metrics.success.ContainsAny`)."""

    def applies(self, response: str) -> bool:
        """Whether a sample with this true response can be poisoned and tested."""
        ...

    def respond(self, response: str, rng: np.random.Generator) -> str:
        """Return the attacker's response in place of the true one."""
        ...
