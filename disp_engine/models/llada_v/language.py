"""LLaDA-V's language model is that of the layout."""

from disp_engine.models.llava.llama import FullAttentionLlama

__all__ = ["FullAttentionLlama"]
