"""The settings of one fine-tuning."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class FineTuning:
    """Projector tuning as published (appendix B.2): AdamW without decay, cosine, warm-up.

    Gradients are clipped at a norm of 1, as the official code's trainer does by default: the
    weight 1/p of Eq. 2 reaches 1,000, and one such row would undo many steps.
    `micro_batch` rows are run at once; `batch_size` rows make one optimiser step.
    """

    epochs: float = 20
    learning_rate: float = 1e-4
    batch_size: int = 32
    micro_batch: int = 32
    warmup_ratio: float = 0.03
    max_grad_norm: float = 1.0

    def steps(self, samples: int) -> int:
        """Optimiser steps over `samples` samples, at least one."""
        return max(1, round(self.epochs * math.ceil(samples / self.batch_size)))

    def rate(self, step: int, steps: int) -> float:
        """Learning rate at a step: linear warm-up, then half a cosine to zero."""
        warmup = math.ceil(self.warmup_ratio * steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        along = (step - warmup) / max(1, steps - warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * along))
