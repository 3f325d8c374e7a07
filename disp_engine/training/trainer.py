"""Fine-tunes the projector on a dataset: Eqs. 1 and 2, everything else but LoRA's part frozen."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor, nn

from disp_engine.context import RunContext
from disp_engine.errors import Aborted, InvalidRequestError
from disp_engine.stages import StageFolder
from disp_engine.training.gradient import sum_gradients
from disp_engine.training.lora import Adapted
from disp_engine.training.order import batch_indices, generator_for
from disp_engine.training.settings import FineTuning
from disp_engine.training.state import restore_state, save_state

SAVING_SHARE = 0.02
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
        return self.spent <= SAVING_SHARE * elapsed + 0.02

    def saved(self, seconds: float) -> None:
        """Account for one save."""
        self.spent += seconds


def fine_tune(
    trained: nn.Module,
    loss_of: Loss,
    samples: int,
    settings: FineTuning,
    seed: int,
    stage: StageFolder,
    context: RunContext,
) -> None:
    """Train in place; continues from the stage's state when there is one.

    A run that was killed and resumed ends with the same weights: the order, the noise and the
    learning rate are functions of the seed and the step. So does one that several processes share,
    each of which calls this with the same arguments; the first of them saves.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    groups = list(_groups(trained, settings))
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=0.0)
    steps = settings.steps(samples)
    pace = SavingPace(started=time.monotonic())
    for step in range(restore_state(stage, trained, optimizer), steps):
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * settings.rate(step, steps)
        loss = _step(accelerator, optimizer, loss_of, samples, settings, seed, step)
        if not math.isfinite(loss):
            raise InvalidRequestError(f"training diverged at step {step}: lower learning_rate.")
        context.metric(step, {"loss": loss, "learning_rate": settings.rate(step, steps)})
        context.progress(step + 1, steps, "steps")
        stopping = _anyone(accelerator, context.should_abort())
        due = pace.due() or stopping or step + 1 == steps
        if due and accelerator.is_main_process:
            before = time.monotonic()
            save_state(stage, trained, optimizer, step + 1)
            pace.saved(time.monotonic() - before)
        if stopping:
            raise Aborted("The tuning was asked to stop.")


def _groups(trained: nn.Module, settings: FineTuning) -> Iterator[dict[str, Any]]:
    """Parameters with their share of the learning rate, which is the projector's."""
    if not isinstance(trained, Adapted):
        yield {"params": list(trained.parameters()), "share": 1.0}
        return
    yield {"params": list(trained.projector.parameters()), "share": 1.0}
    share = trained.settings.learning_rate / settings.learning_rate
    yield {"params": list(trained.adapters.parameters()), "share": share}


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
    parts = torch.split(indices, settings.micro_batch)

    def share_of(number: int) -> Float[Tensor, ""]:
        """A micro-batch's share of the batch's mean loss, with noise of its own."""
        generator = generator_for(seed, step, stream=1 + number)
        return loss_of(parts[number], generator) * (len(parts[number]) / len(indices))

    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    total = sum_gradients(accelerator, parameters, share_of, len(parts))
    accelerator.clip_grad_norm_(parameters, settings.max_grad_norm)
    optimizer.step()
    return total


def _anyone(accelerator: Accelerator, stopping: bool) -> bool:
    """Whether any of the processes is to stop: then all do, after the same step."""
    told = torch.tensor([int(stopping)], device=accelerator.device)
    return bool(accelerator.gather(told).any())
