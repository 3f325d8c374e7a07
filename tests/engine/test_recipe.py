"""The recipe of the built-in checkpoints: what it writes is what the families read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from disp_engine import registry
from disp_engine.builtin.recipe.language import Student
from disp_engine.builtin.recipe.layout import LAYOUTS, write_configs, write_weights
from disp_engine.builtin.recipe.pictures import draw_pictures, resized
from disp_engine.builtin.recipe.plans import PLANS, Plan
from disp_engine.builtin.recipe.tokenizer import build_tokenizer, save_tokenizer
from disp_engine.builtin.recipe.tower import POSITIONS, normalise, on_grid
from disp_engine.models.llava.model import LlavaModel
from disp_engine.models.llava.names import llada_name, llama_name
from disp_engine.models.llava.siglip import SiglipTower
from disp_engine.records import Turn

EACH = pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)


def untrained(plan: Plan, folder: Path) -> tuple[Student, SiglipTower, LlavaModel]:
    torch.manual_seed(0)
    tokenizer, layout = build_tokenizer(), LAYOUTS[plan.family]
    save_tokenizer(tokenizer, folder)
    write_configs(folder, tokenizer, layout)
    config = plan.config.from_folder(folder)
    student, tower = Student(config, plan.prompter(tokenizer).mask), SiglipTower(config.vision)
    write_weights(folder, tower.state_dict(), student.state_dict(), layout)
    model = registry.load_model(folder)
    assert isinstance(model, LlavaModel)
    return student, tower.eval(), model


@EACH
def test_a_student_shows_a_picture_as_its_family_does(plan: Plan, tmp_path: Path) -> None:
    student, tower, model = untrained(plan, tmp_path)
    pictures = draw_pictures(1, np.random.default_rng(0), stickers=0)
    with torch.no_grad():
        features = tower(normalise(resized(pictures.pixels, model.config.vision.image_size)))
        shown = student._picture(student.projector(features)[0])
    assert len(shown) == student.visual_tokens
    assert torch.allclose(shown, visual(model, pictures.pixels[0]), atol=1e-5)


def test_a_tower_on_a_finer_grid_keeps_its_middle_between_the_middle_four(tmp_path: Path) -> None:
    _, tower, model = untrained(PLANS[0], tmp_path)
    fine = replace(model.config.vision, image_size=model.config.vision.image_size + 8)
    same, finer = (on_grid(tower, size).state_dict() for size in (model.config.vision, fine))
    before = tower.state_dict()
    assert all(torch.equal(same[name], before[name]) for name in before)
    moved = {name for name in before if not torch.equal(finer[name][:1], before[name][:1])}
    assert moved == {POSITIONS} and len(finer[POSITIONS]) == 81
    ramp = torch.arange(8.0).repeat(8, 1)  # a table that only tells the column
    tower.load_state_dict(before | {POSITIONS: ramp.reshape(64, 1).expand(64, 96).contiguous()})
    columns = on_grid(tower, fine).state_dict()[POSITIONS][:, 0].reshape(9, 9)
    assert torch.allclose(columns[:, 4], torch.tensor(3.5), atol=1e-5)


@torch.no_grad()
def visual(model: LlavaModel, pixels: np.ndarray) -> Tensor:
    question = model.tokenise_prompt([Turn("human", "<image>\nWhat?")])
    prompt = model.embed(question, model.encode_images([Image.fromarray(pixels)]))
    return prompt.embeddings[prompt.visual()]


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
        "model.layers.3.self_attn.q_proj.weight", "model.layers.0.self_attn.o_proj.weight",
        "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight",
        "model.layers.11.mlp.down_proj.weight", "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
    ],
)  # fmt: skip
def test_a_tensor_written_under_lavidas_name_is_read_under_its_own(name: str) -> None:
    assert llada_name(name) != name
    assert llama_name(llada_name(name)) == name


@pytest.mark.parametrize("name", ["model.mm_projector.0.weight", "model.image_newline"])
def test_what_is_not_the_language_models_keeps_its_name(name: str) -> None:
    assert llada_name(name) == name
