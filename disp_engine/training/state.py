"""The state of a fine-tuning as safetensors; nothing is pickled."""

import torch
from torch import nn

from disp_engine.stages import StageFolder

FILE = "state.safetensors"


def save_state(
    stage: StageFolder, trained: nn.Module, optimizer: torch.optim.AdamW, step: int
) -> None:
    """Keep the parameters, both AdamW moments and the number of steps taken, in one file."""
    tensors = {"step": torch.tensor(step)}
    for name, parameter in trained.named_parameters():
        tensors[f"parameter.{name}"] = parameter
        moments = optimizer.state[parameter]
        tensors[f"exp_avg.{name}"] = moments["exp_avg"]
        tensors[f"exp_avg_sq.{name}"] = moments["exp_avg_sq"]
    stage.write_tensors(FILE, tensors)


def restore_state(stage: StageFolder, trained: nn.Module, optimizer: torch.optim.AdamW) -> int:
    """Restore what `save_state` kept and return the steps taken; 0 when there is nothing."""
    if not stage.has(FILE):
        return 0
    tensors = stage.read_tensors(FILE)
    step = int(tensors["step"])
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            parameter.copy_(tensors[f"parameter.{name}"])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"exp_avg.{name}"].to(parameter),
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(parameter),
            }
    return step


def restore_parameters(stage: StageFolder, trained: nn.Module) -> None:
    """Put the kept parameters back."""
    tensors = stage.read_tensors(FILE)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            parameter.copy_(tensors[f"parameter.{name}"])
