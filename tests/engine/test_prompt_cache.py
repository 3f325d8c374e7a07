"""What is kept of a reading: logits and ids are those of reading it again.

They are for prompts that see no response in every step, and else in the first step of a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from disp_engine import registry
from disp_engine.diffusion import sampler
from disp_engine.diffusion.attention import Attention, prefix_pairs
from disp_engine.diffusion.row import Words
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import Generation, MaskedDenoiser, RememberingDenoiser, Span
from tests.engine.models import FIXTURE

FOLDERS = (FIXTURE, FIXTURE.parents[1] / "lavida" / "anyres")


@dataclass
class Forgetful:
    """The model without its memory."""

    model: Any

    @property
    def mask_embedding(self) -> Float[Tensor, " D"]:
        return self.model.mask_embedding  # type: ignore[no-any-return]

    def token_embeddings(self, ids: Int[Tensor, " T"]) -> Float[Tensor, "T D"]:
        return self.model.token_embeddings(ids)  # type: ignore[no-any-return]

    def logits(self, *given: Any) -> Tensor:
        return self.model.logits(*given)  # type: ignore[no-any-return]


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.parent.name)
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    found: Any = registry.load_model(request.param)
    with torch.inference_mode():
        yield found


def prompts(model: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(n, len(model.mask_embedding), generator=generator) for n in (9, 6, 7)]


def test_logits_after_prompts_that_were_read_are_those_of_reading_them_again(model: Any) -> None:
    read, shown = model.read(prompts(model)), torch.randn(3, 5, len(model.mask_embedding))
    rows = torch.tensor([[0, 4], [1, 1], [2, 3]])
    found = model.logits_after(read, shown, rows)
    for number, prompt in enumerate(prompts(model)):
        whole = torch.cat([prompt, shown[number]])[None]
        pairs = prefix_pairs(torch.tensor([len(prompt)]), torch.ones(whole.shape[:2]).bool())
        want = model.logits(whole, len(prompt) + rows[number : number + 1], pairs)
        torch.testing.assert_close(found[number], want[0], rtol=0, atol=1e-4)
        alone = model.logits_after(read.of([number]), shown[number][None], rows[number][None])
        torch.testing.assert_close(alone[0], want[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_the_ids_are_the_same(model: Any, guidance: float) -> None:
    assert isinstance(model, RememberingDenoiser)
    assert not isinstance(Forgetful(model), RememberingDenoiser)
    assert isinstance(Forgetful(model), MaskedDenoiser)
    how = Generation(length=8, block_length=4, guidance=guidance)
    stop = sampler.denoise(model, prompts(model), how, words(model), None, Attention.PREFIX)[0][2:4]
    given = (how, words(model, tuple(stop.tolist())), None, Attention.PREFIX)
    kept = sampler.denoise(model, prompts(model), *given)
    again = sampler.denoise(Forgetful(model), prompts(model), *given)
    assert [ids.tolist() for ids in kept] == [ids.tolist() for ids in again]
    assert len({len(ids) for ids in kept}) > 1, "a row falls out before the others"


@pytest.mark.parametrize("again", [Span(0, 5), Span(0, 2), Span(2, 4)])
def test_in_sight_of_all_that_was_read_logits_are_those_of_the_whole(
    model: Any, again: Span
) -> None:
    shown = torch.randn(3, 5, len(model.mask_embedding))
    read = model.read(prompts(model), shown, again)
    rows = torch.tensor([[0, 1], [1, 1], [1, 0]])
    found = model.logits_after(read, shown[:, again.start : again.end], rows)
    for number, prompt in enumerate(prompts(model)):
        whole = torch.cat([prompt, shown[number]])[None]
        places = len(prompt) + again.start + rows[number : number + 1]
        want = model.logits(whole, places)
        torch.testing.assert_close(found[number], want[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kv_cache", ["prefix", "dual"])
def test_read_anew_before_each_token_it_changes_nothing(model: Any, kv_cache: Any) -> None:
    exact = Generation(length=8, block_length=1)
    stop = sampler.denoise(model, prompts(model), exact, words(model))[0][2:4]
    given = words(model, tuple(stop.tolist()))
    kept = sampler.denoise(model, prompts(model), replace(exact, kv_cache=kv_cache), given)
    again = sampler.denoise(model, prompts(model), exact, given)
    assert [ids.tolist() for ids in kept] == [ids.tolist() for ids in again]
    assert len({len(ids) for ids in kept}) > 1, "a row falls out before the others"


@pytest.mark.parametrize(("kv_cache", "read_again"), [("prefix", 8 + 2), ("dual", 4)])
def test_within_a_block_only_what_it_names_is_read_again(
    model: Any, monkeypatch: pytest.MonkeyPatch, kv_cache: Any, read_again: int
) -> None:
    widths: list[int] = []
    forward = type(model).logits_after

    def noted(self: Any, read: Any, embeddings: Tensor, rows: Tensor) -> Tensor:
        widths.append(embeddings.shape[1])
        return forward(self, read, embeddings, rows)

    monkeypatch.setattr(type(model), "logits_after", noted)
    how = Generation(length=8, block_length=4, kv_cache=kv_cache)
    sampler.denoise(model, prompts(model), how, words(model))
    assert widths == 8 * [read_again]


@pytest.mark.parametrize(
    ("given", "attention"),
    [({"guidance": 1.0}, Attention.FULL), ({}, Attention.PREFIX)],
)
def test_what_a_cache_does_not_go_with_is_refused(
    model: Any, given: dict[str, Any], attention: Attention
) -> None:
    how = Generation(length=4, block_length=4, kv_cache="dual", **given)
    with pytest.raises(InvalidRequestError, match="kv_cache"):
        sampler.denoise(model, prompts(model), how, words(model), None, attention)
    with pytest.raises(InvalidRequestError, match="kv_cache"):
        sampler.denoise(Forgetful(model), prompts(model), how, words(model))


def words(model: Any, stop: tuple[int, ...] = ()) -> Words:
    stops = (stop,) if stop else ()
    return Words(model.prompter.mask, model.prompter.suppressed, stops, suffix=(5, 6))
