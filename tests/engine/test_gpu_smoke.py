"""The smoke test's own code, on the recorded checkpoints' sizes."""

from pathlib import Path

import pytest
import torch

from benchmarks.gpu_smoke import FAMILIES, build, smoke

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_stage_runs_on_random_weights(name: str) -> None:
    family, _ = FAMILIES[name]
    folder = FIXTURES / name / "anyres"
    config = family.config_class.from_folder(folder)
    model = build(family, config, folder, torch.device("cpu"))
    steps = smoke(model, side=100)
    assert list(steps) == ["encode", "tune", "saliency", "denoise"]
    assert all(step.peak_bytes is None for step in steps.values())
