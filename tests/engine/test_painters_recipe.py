"""The recipe of the networks of pictures, for a few steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from disp_engine import registry
from disp_engine.builtin.recipe.__main__ import Progress
from disp_engine.builtin.recipe.painters import PainterRecipe, write_ddpm, write_mae
from disp_engine.guards.denoiser import Denoiser
from disp_engine.guards.inpainter import Inpainter
from tests.engine.models import picture

QUICK = PainterRecipe(steps=2, batch=2, scenes=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("painters")
    for name, write in (("ddpm", write_ddpm), ("mae", write_mae)):
        (root / name).mkdir()
        progress = Progress(root / f"{name}.safetensors")
        write(root / name, QUICK, progress.save, progress.restore)
    return root


def test_the_guards_read_what_the_recipe_writes(out: Path) -> None:
    denoiser, image = Denoiser.from_folder(out / "ddpm", CPU), picture(0, (64, 64))
    assert (denoiser.side, denoiser.steps) == (64, 1000)
    assert torch.isfinite(denoiser.guessed(denoiser.read(image), 10)).all()
    inpainter = Inpainter.from_folder(out / "mae", CPU)
    nothing = np.zeros(64, dtype=bool)
    assert (np.asarray(inpainter.painted(image, nothing)) == np.asarray(image)).all()


def test_a_training_goes_on_where_it_was_stopped(out: Path, tmp_path: Path) -> None:
    progress = Progress(tmp_path / "ddpm.safetensors")

    def stop(*given: object) -> None:
        progress.save(*given)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    recipe = PainterRecipe(steps=2, batch=2, scenes=3, save_every=1)
    with pytest.raises(KeyboardInterrupt):
        write_ddpm(tmp_path, recipe, stop, progress.restore)
    write_ddpm(tmp_path, recipe, progress.save, progress.restore)
    ours, whole = (Denoiser.from_folder(folder, CPU) for folder in (tmp_path, out / "ddpm"))
    for mine, other in zip(ours.unet.parameters(), whole.unet.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_painters_are_no_models_that_a_job_can_name(out: Path) -> None:
    for name in ("ddpm", "mae"):
        assert yaml.safe_load((out / name / "card.yaml").read_text())["kind"] == "painter"
    assert "painter" not in registry.MODEL_KINDS
