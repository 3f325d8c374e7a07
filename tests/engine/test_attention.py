"""The attention verb against transformers' own eager attention."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import eager_attention_forward

from disp_engine import registry
from disp_engine.diffusion.attention import Attention, prefix_pairs
from disp_engine.interfaces import AttendingModel
from disp_engine.models.llava.attention import recorded
from tests.engine.models import FIXTURE, GEMMA

LAVIDA = FIXTURE.parents[1] / "lavida" / "anyres"


@pytest.mark.parametrize("folder", [FIXTURE, LAVIDA], ids=lambda folder: folder.parent.name)
@pytest.mark.parametrize("seen", ["all", "unpadded", "prefix"])
def test_rows_are_those_of_the_eager_attention(folder: Path, seen: str) -> None:
    model: Any = registry.load_model(folder)
    generator = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(2, 7, len(model.mask_embedding), generator=generator)
    attended = torch.ones(2, 7, dtype=torch.bool)
    attended[1, 5:] = seen == "all"
    if seen == "prefix":
        attended = prefix_pairs(torch.tensor([4, 2]), attended)
    rows = torch.tensor([[0, 6], [3, 4]])
    found = model.attention_rows(x, rows, range(model.depth), attended)
    expected = _eager(model, x, attended)
    for layer in range(model.depth):
        for sample in range(2):
            want = expected[layer][sample][:, rows[sample]]
            torch.testing.assert_close(found[sample, layer], want, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found.sum(-1)))
    if seen == "prefix":
        assert (found[0, :, :, 0, 4:] == 0).all(), "a prompt sees no response"


def test_the_hooks_are_gone_also_after_an_error() -> None:
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError), recorded([layer]):
        layer(torch.zeros(3))
    assert not layer._forward_hooks


def test_a_lavida_prompt_sees_no_response_when_that_is_its_mode() -> None:
    model: Any = registry.load_model(LAVIDA)
    x = 0.1 * torch.randn(1, 7, len(model.mask_embedding), generator=torch.Generator())
    rows = torch.tensor([[3, 6]])
    model.attention = Attention.PREFIX
    found = model.attention_rows(x, rows, range(model.depth))
    pairs = prefix_pairs(torch.tensor([3]), torch.ones(1, 7, dtype=torch.bool))
    expected = _eager(model, x, pairs)
    for layer, weights in enumerate(expected):
        torch.testing.assert_close(found[0, layer], weights[0][:, rows[0]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("folder", "attends"), [(FIXTURE, True), (LAVIDA, True), (GEMMA, False)])
def test_only_masked_denoisers_of_the_shared_layout_show_their_attention(
    folder: Path, attends: bool
) -> None:
    assert isinstance(registry.load_model(folder), AttendingModel) is attends


def _eager(model, x, attended):  # type: ignore[no-untyped-def]
    """Layer by layer with transformers' eager kernel on the same modules."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    language = model.language
    positions = torch.arange(x.shape[1])[None]
    cos, sin = language.rotary_emb(x, position_ids=positions)
    allowed = attended[:, None] if attended.ndim == 3 else attended[:, None, None]
    mask = torch.zeros_like(allowed, dtype=x.dtype).masked_fill(~allowed, torch.finfo(x.dtype).min)
    hidden, found = x, []
    with torch.no_grad():
        for layer in language.layers:
            attention, normed = layer.self_attn, layer.input_layernorm(hidden)
            shape = (*normed.shape[:2], -1, attention.head_dim)
            q, k, v = (
                proj(normed).view(shape).transpose(1, 2)
                for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            q, k = apply_rotary_pos_emb(q, k, cos, sin)
            out, weights = eager_attention_forward(
                attention, q, k, v, mask, scaling=attention.scaling
            )
            found.append(weights)
            hidden = hidden + attention.o_proj(out.reshape(*hidden.shape[:2], -1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return found
