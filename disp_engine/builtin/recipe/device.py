"""Where the recipe trains: on a GPU if there is one."""

import torch


def training_device() -> torch.device:
    """The first GPU, or the processor; noise is drawn on the processor for both."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
