"""What every masked diffusion family promises whoever hides columns or looks at its attention."""

from typing import Any

import pytest
import torch
from torch import Tensor

from disp_engine.diffusion.attention import Attention
from disp_engine.interfaces import Generation
from disp_engine.records import Embedded, Turn
from tests.engine.models import MASKED, masked_model, picture

FIRST = 1
ROWS = 4


@pytest.fixture(params=MASKED)
def model(request: pytest.FixtureRequest) -> Any:
    return masked_model(request.param)


def prompt_of(model: Any, text: str = "What?") -> Embedded:
    with torch.no_grad():
        shown = model.encode_images([picture()])
        return model.embed(model.tokenise_prompt([Turn("human", f"<image>\n{text}")]), shown)


def columns_of(prompt: Embedded) -> Tensor:
    """Three visual tokens."""
    start = prompt.spans[0][0]
    marked = torch.zeros(len(prompt.embeddings), dtype=torch.bool)
    marked[start + 1 : start + 4] = True
    return marked


def canvas(model: Any, prompt: Embedded) -> tuple[Tensor, Tensor]:
    masks = model.mask_embedding.expand(ROWS, -1)
    size = len(prompt.embeddings)
    return torch.cat([prompt.embeddings, masks])[None], torch.arange(size, size + ROWS)[None]


@torch.no_grad()
def looks(model: Any, prompt: Embedded) -> Tensor:
    return model.attention_rows(*canvas(model, prompt), range(model.depth))


@torch.no_grad()
def logits(model: Any, prompt: Embedded) -> Tensor:
    return model.logits(*canvas(model, prompt))


def test_hidden_columns_have_no_weight_from_their_first_layer_on(model: Any) -> None:
    prompt = prompt_of(model)
    columns = columns_of(prompt)
    with model.hiding(columns, FIRST):
        weights = looks(model, prompt)[0]
    hidden = weights[..., : len(columns)][..., columns]
    assert (hidden[:FIRST] > 0).all(), "law: earlier layers read them"
    assert (hidden[FIRST:] == 0).all(), "law: later ones do not"
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))


def test_what_is_hidden_from_the_first_layer_on_is_not_there(model: Any) -> None:
    """Hidden everywhere, the columns may hold anything."""
    prompt = prompt_of(model)
    columns = columns_of(prompt)
    other = prompt.embeddings.clone()
    other[columns] = 7.0
    with model.hiding(columns, 0):
        expected = logits(model, prompt)
        found = logits(model, Embedded(other, prompt.spans))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(expected, logits(model, prompt)), "law: hiding does something"


def test_nothing_is_left_behind_also_when_the_forward_raises(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = prompt_of(model)
    plain, seen, hooks = logits(model, prompt), looks(model, prompt), hooks_of(model)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the forward broke off")

    with monkeypatch.context() as patch:
        patch.setattr(model.language.norm, "forward", broken)
        with pytest.raises(RuntimeError, match="broke off"), model.hiding(columns_of(prompt), 0):
            looks(model, prompt)
    assert hooks_of(model) == hooks, "law: no hook is left behind"
    assert torch.equal(logits(model, prompt), plain), "law: nothing stays hidden"
    assert torch.equal(looks(model, prompt), seen)


def hooks_of(model: Any) -> list[int]:
    return [
        number
        for module in model.language.modules()
        for kind in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        for number in kind
    ]


@pytest.mark.parametrize("attention", Attention)
def test_columns_stay_hidden_in_all_denoising_steps(
    model: Any, attention: Attention, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a prompt is read once and kept: its hidden columns are not read from there."""
    monkeypatch.setattr(model, "attention", attention)
    steps: list[Tensor] = []
    head = model.language.logits
    monkeypatch.setattr(model.language, "logits", lambda x: steps.append(x) or head(x))
    prompt, generation = prompt_of(model), Generation(8, 4)
    columns = columns_of(prompt)
    other = prompt.embeddings.clone()
    other[columns] = 7.0
    with model.hiding(columns, 0):
        model.denoise([prompt], generation)
        expected, steps[:] = [*steps], []
        model.denoise([Embedded(other, prompt.spans)], generation)
        found, steps[:] = [*steps], []
    model.denoise([Embedded(other, prompt.spans)], generation)
    assert len(expected) == len(found) == 8
    for one, same, bare in zip(expected, found, steps, strict=False):
        torch.testing.assert_close(one, same)
        assert not torch.allclose(one, bare), "law: without, every step reads them"
