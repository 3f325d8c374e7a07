"""Fine-tunes the projector on a dataset: Eqs. 1 and 2, everything else frozen."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor, nn

from disp_engine.context import RunContext, check
from disp_engine.errors import InvalidRequestError
from disp_engine.stages import Stage
from disp_engine.training.order import batch_indices, generator_for
from disp_engine.training.settings import FineTuning
from disp_engine.training.state import restore_state, save_state

SAVING_SHARE = 0.03
"""Largest share of the running time that may go into saving the state."""

Loss = Callable[[Int[Tensor, " B"], torch.Generator], Float[Tensor, ""]]
"""Mean loss of the samples with these indices, noised by draws from the generator."""


@dataclass
class SavingPace:
    """Saves at every step while that is cheap, else as often as SAVING_SHARE allows.

    A kill then costs the steps since the last save, more than one where a save is dear.
    """

    spent: float = 0.0
    started: float = 0.0

    def due(self) -> bool:
        """Whether the last saves cost little enough for another one."""
        elapsed = time.monotonic() - self.started
        return self.spent <= SAVING_SHARE * elapsed + 0.05

    def saved(self, seconds: float) -> None:
        """Account for one save."""
        self.spent += seconds


def fine_tune(
    projector: nn.Module,
    loss_of: Loss,
    samples: int,
    settings: FineTuning,
    seed: int,
    stage: Stage,
    context: RunContext,
) -> None:
    """Train `projector` in place; continues from the stage's state when there is one.

    A run that was killed and resumed ends with the same weights: the order, the noise and the
    learning rate are functions of the seed and the step.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    parameters = list(projector.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    steps = settings.steps(samples)
    pace = SavingPace(started=time.monotonic())
    for step in range(restore_state(stage, projector, optimizer), steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step, steps)
        loss = _step(accelerator, optimizer, loss_of, samples, settings, seed, step)
        if not math.isfinite(loss):
            raise InvalidRequestError(f"training diverged at step {step}: lower learning_rate.")
        context.metric(step, {"loss": loss, "learning_rate": settings.rate(step, steps)})
        context.progress(step + 1, steps, "steps")
        if pace.due() or context.should_abort() or step + 1 == steps:
            before = time.monotonic()
            save_state(stage, projector, optimizer, step + 1, loss)
            pace.saved(time.monotonic() - before)
        check(context)


def _step(
    accelerator: Accelerator,
    optimizer: torch.optim.AdamW,
    loss_of: Loss,
    samples: int,
    settings: FineTuning,
    seed: int,
    step: int,
) -> float:
    indices = batch_indices(step, samples, settings.batch_size, seed)
    optimizer.zero_grad()
    total = 0.0
    for number, part in enumerate(torch.split(indices, settings.micro_batch)):
        generator = generator_for(seed, step, stream=1 + number)
        loss = loss_of(part, generator) * (len(part) / len(indices))
        accelerator.backward(loss)
        total += loss.item()
    parameters = optimizer.param_groups[0]["params"]
    accelerator.clip_grad_norm_(parameters, settings.max_grad_norm)
    optimizer.step()
    return total
