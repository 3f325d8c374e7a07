"""Prompts that see no response, read once: logits and ids are those of reading them each step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from disp_engine import registry
from disp_engine.diffusion import sampler
from disp_engine.diffusion.attention import Attention, prefix_pairs
from disp_engine.interfaces import Generation, MaskedDenoiser, RememberingDenoiser
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


def words(model: Any, stop: tuple[int, ...] = ()) -> sampler.Words:
    stops = (stop,) if stop else ()
    return sampler.Words(model.prompter.mask, model.prompter.suppressed, stops, suffix=(5, 6))
