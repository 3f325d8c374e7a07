"""The autoregressive families against transformers' own classes on random tiny models."""

from typing import Any

import pytest
import torch
from torch import Tensor

from disp_engine import registry
from disp_engine.errors import InvalidModelError
from disp_engine.interfaces import AutoregressiveModel, DiffusionModel
from disp_engine.records import IGNORE, Embedded, Turn
from tests.engine.causal_models import FAMILIES, causal_model, folder_of, generated, library
from tests.engine.models import picture

QUESTIONS = ("<image>\nWhat?", "<image>\nWhat is it that is shown here?")
LENGTH = 6


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def prompts(model: AutoregressiveModel, sizes: Any = ((30, 24), (40, 60))) -> list[Embedded]:
    images = [picture(number, size) for number, size in enumerate(sizes)]
    return [
        model.embed(model.tokenise_prompt([Turn("human", text)]), [shown])
        for text, shown in zip(QUESTIONS, model.encode_images(images), strict=True)
    ]


def spoken(model: AutoregressiveModel, shown: list[Embedded]) -> tuple[Tensor, Tensor]:
    """Ids [B T] and logits [B T V] of each step."""
    reading = model.read(shown)
    ids, logits = [], [reading.logits]
    for said in model.say(reading, LENGTH):
        ids.append(torch.where(said.alive, said.ids, 2))
    return torch.stack(ids, dim=1), logits[0]


@pytest.mark.parametrize("count", [1, 2], ids=["unpadded", "batched"])
def test_answers_and_logits_are_those_of_transformers_generate(name: str, count: int) -> None:
    model: Any = causal_model(name)
    images = [picture(number, size) for number, size in enumerate(((30, 24), (40, 60)))][:count]
    texts = [model.prompter.prompt_text([Turn("human", q)]) for q in QUESTIONS[:count]]
    expected, logits = generated(name, texts, images, LENGTH)
    reading = model.read(prompts(model)[:count])
    torch.testing.assert_close(reading.logits, logits[:, 0], atol=2e-4, rtol=1e-3)
    rows = []
    for step, said in enumerate(model.say(reading, LENGTH)):
        rows.append(said.ids)
        assert torch.equal(said.ids[said.alive], expected[said.alive, step])
    assert len(rows) == expected.shape[1]
    assert len(set(torch.stack(rows).flatten().tolist())) > 1, "the answers must not be trivial"
