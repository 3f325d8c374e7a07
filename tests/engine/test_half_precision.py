"""Every stage of the families in half precision on the host, the projector in float32."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from disp_engine.interfaces import Generation
from disp_engine.records import Turn
from disp_engine.registry import load_model
from disp_engine.saliency.estimator import SaliencySettings, estimate_saliency
from tests.engine.models import gemma_folder, picture

LAVIDA = Path(__file__).parents[1] / "fixtures" / "lavida" / "anyres"
QUESTION = [Turn("human", "<image>\nWhat is it?")]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["lavida", "diffusion_gemma"])
def test_every_stage_is_finite(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = LAVIDA if family == "lavida" else gemma_folder(tmp_path / "model")
    model = load_model(folder, dtype=dtype)
    assert model.dtype == dtype
    assert {value.dtype for value in model.projector.parameters()} == {torch.float32}
    features = model.encode_images([picture(0)])
    assert all(f.tiles.dtype == dtype and f.tiles.isfinite().all() for f in features)
    prompt = model.embed(model.tokenise_prompt(QUESTION), features)
    (salient,) = estimate_saliency(model, [prompt], SaliencySettings(probes=1, rows=4, length=8))
    assert salient.scores.isfinite().all() and salient.scores.gt(0).any()
    (ids,) = model.denoise([prompt], Generation(length=8, block_length=8, steps=4, stop=()))
    assert len(ids) <= 8
    lesson = model.tokenise_example([*QUESTION, Turn("gpt", "A cat.")])
    loss = model.noised_loss([model.embed(lesson, features)], torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.isfinite()
    gradients = [value.grad for value in model.projector.parameters()]
    assert all(g is not None and g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
    model.save_projector(tmp_path / "p.safetensors")
    assert {value.dtype for value in load_file(tmp_path / "p.safetensors").values()} == {dtype}
