"""The engine's named modes, for the time of a measurement."""

from collections.abc import Iterator
from contextlib import contextmanager

from disp_engine.diffusion.attention import Attention
from disp_engine.models.llava.model import LlavaModel


@contextmanager
def in_prefix_mode(model: LlavaModel) -> Iterator[None]:
    """Let no prompt see its response meanwhile."""
    before, model.attention = model.attention, Attention.PREFIX
    try:
        yield
    finally:
        model.attention = before
