"""The layer against transformers' own, whose parameters it has; and what is run of it."""

import pytest
import torch
from torch import Tensor
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

from disp_engine.diffusion.attention import prefix_pairs
from disp_engine.models.llava.layer import FullAttentionLayer, RootMeanSquareNorm
from disp_engine.records import Turn
from disp_engine.training.projector import embed_all
from tests.engine.models import picture, random_llada_v

B, L, D = 2, 9, 32
CONFIG = LlamaConfig(
    hidden_size=D, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2
)


@pytest.fixture(scope="module")
def layers() -> tuple[LlamaDecoderLayer, FullAttentionLayer]:
    """Transformers' layer and ours, frozen, with the same random parameters."""
    torch.manual_seed(0)
    CONFIG._attn_implementation = "sdpa"
    reference, ours = LlamaDecoderLayer(CONFIG, 0), FullAttentionLayer(CONFIG, 0)
    for value in reference.parameters():
        torch.nn.init.normal_(value, std=0.3)
    assert ours.load_state_dict(reference.state_dict()).missing_keys == []
    return reference.requires_grad_(False), ours.requires_grad_(False)


def rotary(kind: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    cosines, sines = LlamaRotaryEmbedding(CONFIG)(torch.zeros(1, dtype=kind), torch.arange(L)[None])
    return cosines, sines


def masks() -> dict[str, Tensor | None]:
    keys = torch.arange(L) < torch.tensor([[L], [L - 3]])
    pairs = prefix_pairs(torch.tensor([5, 4]), keys)
    return {"none": None, "keys": keys[:, None, None], "pairs": pairs[:, None]}


def gradient_of(stream: Tensor, x: Tensor) -> Tensor:
    weights = torch.randn(stream.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((stream * weights).sum(), x)
    return gradient


@pytest.mark.parametrize("mask", ["none", "keys", "pairs"])
def test_the_stream_and_its_gradient_are_transformers(
    layers: tuple[LlamaDecoderLayer, FullAttentionLayer], mask: str
) -> None:
    reference, ours = layers
    x = torch.randn(B, L, D, generator=torch.Generator().manual_seed(0)).requires_grad_()
    seen = masks()[mask]
    want = reference(x, attention_mask=seen, position_embeddings=rotary(), is_causal=False)
    got = ours(x, rotary(), seen)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, rotary(), seen), want, rtol=1e-5, atol=1e-5)
    scale = float(gradient_of(want, x).abs().max())
    error = gradient_of(ours(x, rotary(), seen), x) - gradient_of(
        reference(x, attention_mask=seen, position_embeddings=rotary(), is_causal=False), x
    )
    assert float(error.abs().max()) < 1e-5 * scale


@pytest.mark.parametrize("mask", ["none", "keys", "pairs"])
def test_wanted_rows_are_those_of_the_whole(
    layers: tuple[LlamaDecoderLayer, FullAttentionLayer], mask: str
) -> None:
    ours, seen = layers[1], masks()[mask]
    x = torch.randn(B, L, D, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows = torch.tensor([[1, 5, 8], [4, 0, 0]])
    real = torch.tensor([[True, True, True], [True, True, False]])
    whole = ours(x, rotary(), seen).take_along_dim(rows[:, :, None], dim=1)
    few = ours(x, rotary(), seen, rows)
    torch.testing.assert_close(few, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x, rotary(), seen, rows, real), whole[real])
    want, got = gradient_of(whole[real], x), gradient_of(ours(x, rotary(), seen, rows, real), x)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_rotation_in_float32_is_rounded_once() -> None:
    ours = FullAttentionLayer(CONFIG, 0).to(torch.bfloat16).requires_grad_(False)
    x = torch.randn(1, L, D, dtype=torch.bfloat16)
    assert ours(x, rotary()).dtype == torch.bfloat16
    assert ours(x, rotary(torch.bfloat16)).dtype == torch.bfloat16


def test_a_norm_that_learns_learns_as_transformers_does() -> None:
    reference, ours = LlamaRMSNorm(D), RootMeanSquareNorm(D)
    x = torch.randn(B, L, D)
    reference(x).square().sum().backward()
    ours(x).square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, reference.weight.grad)
    ours.requires_grad_(False)
    torch.testing.assert_close(ours(x), reference(x))


def test_marked_positions_are_those_of_the_whole_and_rows_without_any_are_not_read() -> None:
    model = random_llada_v()
    x = 0.1 * torch.randn(3, 7, len(model.mask_embedding))
    marked = torch.zeros(3, 7, dtype=torch.bool)
    marked[0, [2, 5, 6]] = marked[2, 4] = True
    torch.testing.assert_close(model.hidden_at(x, marked), model.language(x)[marked])
    x.requires_grad_()
    nothing = model.hidden_at(x, torch.zeros_like(marked))
    assert len(nothing) == 0
    (gradient,) = torch.autograd.grad(nothing.sum(), x)
    assert not gradient.any()


def test_texts_embedded_together_are_what_each_is_alone() -> None:
    model = random_llada_v()
    texts = ("<image>\nWhat?", "No picture.", "<image>\n<image>\nWhich?")
    tokens = [model.tokenise_prompt([Turn("human", text)]) for text in texts]
    first, second, third = model.encode_images([picture(n, (60, 40 + 20 * n)) for n in range(3)])
    features = [[first], [], [second, third]]
    together = embed_all(model, tokens, features)
    for one, text, pictures in zip(together, tokens, features, strict=True):
        alone = model.embed(text, pictures)
        assert one.spans == alone.spans
        torch.testing.assert_close(one.embeddings, alone.embeddings)
