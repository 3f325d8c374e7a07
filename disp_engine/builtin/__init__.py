"""The built-in world and the tiny checkpoints trained on it, in the real families' layout."""
