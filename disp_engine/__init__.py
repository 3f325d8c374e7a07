"""Diffusion Self-Purification of visual-instruction data and the models tuned on them."""
