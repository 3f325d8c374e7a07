"""The smoke test's own code, on the recorded checkpoints' sizes."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_smoke import smoke
from benchmarks.random_models import FAMILIES, GEMMA_26B, GemmaSizes, LlavaSizes, RandomModel
from tests.engine.models import GEMMA, gemma_folder

FIXTURES = Path(__file__).parents[1] / "fixtures"


def tiny(name: str, folder: Path) -> tuple[RandomModel, Path]:
    """A family at the sizes of its recorded checkpoint, and a folder with a tokenizer for it."""
    sizes = FAMILIES[name]
    if isinstance(sizes, LlavaSizes):
        recorded = FIXTURES / name / "anyres"
        config = sizes.family.config_class.from_folder(recorded)
        return LlavaSizes(sizes.family, config), recorded
    raw = json.loads((GEMMA / "config.json").read_text())
    return GemmaSizes(raw, soft_tokens=70), gemma_folder(folder / "gemma")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_stage_runs_on_random_weights(name: str, tmp_path: Path) -> None:
    sizes, tokenizer = tiny(name, tmp_path)
    steps = smoke(sizes.build(tokenizer, torch.device("cpu")), side=100)
    assert list(steps) == ["encode", "tune", "saliency", "denoise"]
    assert all(step.peak_bytes is None for step in steps.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_fewer_layers_take_less_memory(name: str) -> None:
    whole, part = FAMILIES[name].planned(), FAMILIES[name].of_layers(2).planned()
    assert part.weights < whole.weights and part.activations < whole.activations / 10


def test_the_public_diffusion_gemma_has_as_many_parameters_as_its_name_says() -> None:
    assert GemmaSizes(GEMMA_26B).planned().weights / 2 == pytest.approx(26e9, rel=0.03)
