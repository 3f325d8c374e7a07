"""LLaDA-V's tower and projector are those of the layout."""

from disp_engine.models.llava.siglip import SiglipTower, build_projector

__all__ = ["SiglipTower", "build_projector"]
