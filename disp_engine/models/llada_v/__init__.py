"""LLaDA-V."""
