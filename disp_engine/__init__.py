"""Diffusion Self-Purification: find, neutralise and unlearn backdoors in multimodal diffusion models."""
