"""What a trigger and a target are."""

from typing import Protocol, runtime_checkable

from PIL.Image import Image


@runtime_checkable
class Trigger(Protocol):
    """Puts the attacker's mark on a picture, at its original resolution."""

    def apply(self, image: Image) -> Image:
        """Return a marked copy."""
        ...


@runtime_checkable
class Target(Protocol):
    """Says what the attacker wants the model to answer, and how that is recognised."""

    phrases: tuple[str, ...]
    """Any of these in a response means success (see `metrics.success.ContainsAny`)."""

    def respond(self, response: str) -> str:
        """Return the attacker's response in place of the true one."""
        ...
