"""Masked diffusion: the forward process, its objective and the sampler."""
