"""What every autoregressive family promises whoever looks at its attention or hides columns."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from disp_engine import registry
from disp_engine.errors import InvalidModelError
from disp_engine.models.autoregressive.attention import AT_ONCE
from tests.engine.causal_models import FAMILIES, causal_model, folder_of
from tests.engine.test_causal_models import LENGTH, prompts


@dataclass
class Everything:
    """Keeps all rows that it is shown, by layer and first row."""

    layers: frozenset[int]
    rows: Literal["last", "all"]
    seen: list[tuple[int, int, Tensor]] = field(default_factory=list)

    def see(self, layer: int, first: int, weights: Tensor) -> None:
        self.seen.append((layer, first, weights))


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def eager(model: Any, shown: Any) -> list[Tensor]:
    """Whole matrices [B H L L] by transformers' eager attention on the same modules."""
    config = model.backbone.language.config
    ours, config._attn_implementation = config._attn_implementation, "eager"
    longest = max(len(p.embeddings) for p in shown)
    pads = [longest - len(p.embeddings) for p in shown]
    rows, places = [], []
    for prompt, before in zip(shown, pads, strict=True):
        rows.append(torch.nn.functional.pad(prompt.embeddings, (0, 0, before, 0)))
        own = prompt.positions
        own = torch.arange(len(prompt.embeddings)) if own is None else own
        places.append(torch.nn.functional.pad(own, (before, 0)))
    try:
        with torch.no_grad():
            out = model.backbone.language(
                inputs_embeds=torch.stack(rows),
                attention_mask=torch.arange(longest) >= torch.tensor(pads)[:, None],
                position_ids=torch.stack(places, dim=-2),
                output_attentions=True,
            )
    finally:
        config._attn_implementation = ours
    return list(out.attentions)


@pytest.mark.parametrize("rows", ["last", "all"])
def test_rows_are_those_of_the_eager_attention(name: str, rows: Any) -> None:
    model = causal_model(name)
    shown = prompts(model)
    watcher = Everything(frozenset({0, 2}), rows)
    with model.watching(watcher):
        reading = model.read(shown)
    assert {layer for layer, _, _ in watcher.seen} == {0, 2}, "law: named layers only"
    assert max(w.shape[2] for _, _, w in watcher.seen) <= AT_ONCE, "law: never a whole matrix"
    expected = eager(model, shown)
    length = reading.attended.shape[1]
    for layer, first, weights in watcher.seen:
        assert weights.shape[2] == (1 if rows == "last" else min(AT_ONCE, length - first))
        for row, before in enumerate(reading.pads):
            start = max(before, first)
            want = expected[layer][row, :, start : first + weights.shape[2]]
            found = weights[row, :, start - first :]
            torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-3)


def test_rows_of_an_answer_are_those_of_reading_it_as_text(name: str) -> None:
    model: Any = causal_model(name)
    (shown,) = prompts(model, 1)
    watcher = Everything(frozenset(range(model.depth)), "last")
    reading = model.read([shown])
    with model.watching(watcher):
        said = [one.ids for one in model.say(reading, LENGTH) if bool(one.alive.all())]
    words = model.backbone.token_embeddings(torch.cat(said))
    forced = type(shown)(
        torch.cat([shown.embeddings, words]), shown.spans, grids=shown.grids,
        positions=None if shown.positions is None else torch.cat(
            [shown.positions, shown.positions.max() + 1 + torch.arange(len(words)).expand(3, -1)], 1
        ),
    )  # fmt: skip
    expected, size = eager(model, [forced]), len(shown.embeddings)
    assert len(watcher.seen) == model.depth * len(said), "law: each token that is said has a row"
    for number, (layer, _, weights) in enumerate(watcher.seen):
        at = size + number // model.depth
        want = expected[layer][0, :, at, : at + 1]
        torch.testing.assert_close(weights[0, :, 0], want, atol=1e-5, rtol=1e-3)


def test_looking_changes_nothing(name: str) -> None:
    model = causal_model(name)
    shown = prompts(model)
    plain = model.read(shown).logits
    with model.watching(Everything(frozenset(range(model.depth)), "all")):
        assert torch.equal(model.read(shown).logits, plain), "law: to look is not to touch"


class Breaks(Everything):
    def see(self, layer: int, first: int, weights: Tensor) -> None:
        raise RuntimeError("the forward broke off")


def test_nothing_is_left_behind_also_when_the_forward_raises(name: str) -> None:
    model: Any = causal_model(name)
    shown = prompts(model)
    plain, hooks = model.read(shown).logits, hooks_of(model)
    columns = torch.ones(2, 4, dtype=torch.bool)
    broken = Breaks(frozenset({1}), "last")
    with (
        pytest.raises(RuntimeError, match="broke off"),
        model.watching(broken),
        model.hiding(columns, 0),
    ):
        model.read(shown)
    assert torch.equal(model.read(shown).logits, plain), "law: nobody looks and nothing is hidden"
    assert hooks_of(model) == hooks, "law: no hook is left behind"


@dataclass
class Hides(Everything):
    """Hides the first columns of each prompt when it has seen layer 1; breaks off at another."""

    breaks_at: int | None = None

    def see(self, layer: int, first: int, weights: Tensor) -> None:
        super().see(layer, first, weights)
        if layer == self.breaks_at:
            raise RuntimeError("the forward broke off")

    def hide(self, layer: int) -> Tensor | None:
        columns = torch.zeros_like(self.seen[-1][2][:, 0, 0], dtype=torch.bool)
        columns[:, -8:-4] = True
        return columns if layer == 1 else None


def test_what_a_watcher_hides_is_hidden_from_that_layer_on_and_no_longer_than_it_watches(
    name: str,
) -> None:
    model: Any = causal_model(name)
    shown = prompts(model)
    plain = model.read(shown).logits
    watcher = Hides(frozenset({0, 1, 2}), "last")
    with model.watching(watcher):
        found = model.read(shown).logits
    columns = watcher.hide(1)
    assert columns is not None
    with model.hiding(columns, 1):
        torch.testing.assert_close(found, model.read(shown).logits)
    layers = [layer for layer, _, _ in watcher.seen]
    hidden = {
        layer: float(watcher.seen[layers.index(layer)][2][..., -8:-4].sum()) for layer in layers
    }
    assert hidden[1] > 0 and hidden[2] == 0, "law: it sees its own layer whole"
    assert torch.equal(model.read(shown).logits, plain), "law: nothing is hidden afterwards"
    breaking = Hides(frozenset({0, 1, 2}), "last", breaks_at=2)
    with pytest.raises(RuntimeError, match="broke off"), model.watching(breaking):
        model.read(shown)
    assert torch.equal(model.read(shown).logits, plain), "law: nor when the forward raises"


def hooks_of(model: Any) -> list[int]:
    """Hooks of every module, among which may be such as transformers installs for itself."""
    return [
        number
        for module in model.backbone.whole.modules()
        for kind in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        for number in kind
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_hidden_columns_have_no_weight_in_later_layers_and_steps(
    name: str, dtype: torch.dtype
) -> None:
    shown = prompts(causal_model(name))
    model = registry.load_autoregressive(folder_of(name), dtype=dtype)
    watcher = Everything(frozenset(range(model.depth)), "last")
    rows = [replace(prompt, embeddings=prompt.embeddings.to(dtype)) for prompt in shown]
    reading = model.read(rows)
    columns = torch.zeros_like(reading.attended)
    for row, (prompt, before) in enumerate(zip(shown, reading.pads, strict=True)):
        start = prompt.spans[0][0] + before
        columns[row, start : start + 3] = True
    with model.watching(watcher), model.hiding(columns, 1):
        steps = list(model.say(model.read(rows), LENGTH))
    assert len(steps) > 1
    for layer, _, weights in watcher.seen:
        hidden = weights[..., : columns.shape[1]] * columns[:, None, None]
        assert torch.isfinite(weights).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
        assert bool((hidden > 0).any()) == (layer == 0), "law: hidden from the first layer on"


def test_layers_that_the_model_lacks_are_refused(name: str) -> None:
    model = causal_model(name)
    with pytest.raises(InvalidModelError, match="not among the 3 layers"):
        model.watching(Everything(frozenset({3}), "last"))
