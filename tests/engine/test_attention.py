"""The attention verb against transformers' own eager attention."""

import pytest
import torch
from transformers.models.llama.modeling_llama import eager_attention_forward

from disp_engine.interfaces import AttendingModel
from disp_engine.models.llava.attention import recorded
from tests.engine.models import random_llada_v


@pytest.mark.parametrize("padded", [False, True])
def test_rows_are_those_of_the_eager_attention(padded: bool) -> None:
    model = random_llada_v()
    generator = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(2, 7, len(model.mask_embedding), generator=generator)
    attended = torch.ones(2, 7, dtype=torch.bool)
    attended[1, 5:] = not padded
    rows = torch.tensor([[0, 6], [3, 4]])
    found = model.attention_rows(x, rows, range(model.depth), attended)
    expected = _eager(model, x, attended)
    for layer in range(model.depth):
        for sample in range(2):
            want = expected[layer][sample][:, rows[sample]]
            torch.testing.assert_close(found[sample, layer], want, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found.sum(-1)))


def test_the_hooks_are_gone_also_after_an_error() -> None:
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError), recorded([layer]):
        layer(torch.zeros(3))
    assert not layer._forward_hooks


def test_llada_v_shows_its_attention() -> None:
    assert isinstance(random_llada_v(), AttendingModel)


def _eager(model, x, attended):  # type: ignore[no-untyped-def]
    """Layer by layer with transformers' eager kernel on the same modules."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    language = model.language
    positions = torch.arange(x.shape[1])[None]
    cos, sin = language.rotary_emb(x, position_ids=positions)
    mask = torch.zeros(x.shape[0], 1, 1, x.shape[1]).masked_fill(
        ~attended[:, None, None], torch.finfo(x.dtype).min
    )
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
