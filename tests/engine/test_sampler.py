"""The block sampler, on a model whose predictions are written down by hand."""

from collections.abc import Mapping

import pytest
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from disp_engine.diffusion.row import Words
from disp_engine.diffusion.sampler import denoise
from disp_engine.errors import InvalidRequestError
from disp_engine.interfaces import Generation

MASK, SUPPRESSED = 9, 8
WORDS = Words(mask=MASK, suppressed=(SUPPRESSED,))


class Scripted:
    """Predicts `script[i]` = (id, logit) at response position i; embeddings are one-hot ids.

    `seen` records, for every call, the ids at each attended position of the first row.
    """

    def __init__(self, script: Mapping[int, tuple[int, float]], prompt: int = 2) -> None:
        self.script, self.prompt = script, prompt
        self.seen: list[list[int]] = []
        self.batches: list[int] = []

    @property
    def mask_embedding(self) -> Float[Tensor, " D"]:
        return torch.eye(10)[MASK]

    def token_embeddings(self, ids: Int[Tensor, " T"]) -> Float[Tensor, "T D"]:
        return torch.eye(10)[ids]

    def logits(
        self,
        embeddings: Float[Tensor, "B L D"],
        rows: Int[Tensor, "B R"],
        attended: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B R V"]:
        self.seen.append(embeddings[0].argmax(dim=-1).tolist())
        self.batches.append(len(embeddings))
        scores = torch.zeros(*rows.shape, 10)
        for b, r in torch.cartesian_prod(*map(torch.arange, rows.shape)).tolist():
            word, logit = self.script[int(rows[b, r]) - self.prompt]
            scores[b, r, word] = logit
        return scores


class Averaging:
    """Depends on everything a row attends to, so that padding would show."""

    def __init__(self) -> None:
        self.table = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
        self.head = torch.randn(6, 10, generator=torch.Generator().manual_seed(2))

    @property
    def mask_embedding(self) -> Float[Tensor, " D"]:
        return self.table[MASK]

    def token_embeddings(self, ids: Int[Tensor, " T"]) -> Float[Tensor, "T D"]:
        return self.table[ids]

    def logits(
        self,
        embeddings: Float[Tensor, "B L D"],
        rows: Int[Tensor, "B R"],
        attended: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B R V"]:
        seen = torch.ones(embeddings.shape[:2]) if attended is None else attended.float()
        mean = (embeddings * seen[:, :, None]).sum(1) / seen.sum(1, keepdim=True)
        clock = torch.sin(rows[:, :, None] * torch.arange(1, 7))
        return (embeddings.take_along_dim(rows[:, :, None], 1) + 3 * mean[:, None] + clock) @ (
            self.head
        )


def prompt(*ids: int) -> Float[Tensor, "P D"]:
    return torch.eye(10)[list(ids)]


def test_the_most_confident_position_is_committed_first() -> None:
    model = Scripted({0: (1, 2.0), 1: (2, 5.0), 2: (3, 3.0)})
    (ids,) = denoise(model, [prompt(0, 0)], Generation(3, 3, None, ()), WORDS)
    assert ids.tolist() == [1, 2, 3]
    assert [seen[2:] for seen in model.seen] == [[9, 9, 9], [9, 2, 9], [9, 2, 3]]


def test_blocks_are_filled_from_left_to_right() -> None:
    model = Scripted({0: (1, 1.0), 1: (1, 1.5), 2: (2, 8.0), 3: (2, 9.0)})
    denoise(model, [prompt(0, 0)], Generation(4, 2, 2, ()), WORDS)
    assert [seen[2:] for seen in model.seen] == [[9, 9, 9, 9], [1, 1, 9, 9]]


def test_the_remainder_is_committed_in_the_first_steps() -> None:
    model = Scripted({i: (1, 9.0 - i) for i in range(5)})
    denoise(model, [prompt(0, 0)], Generation(5, 5, 3, ()), WORDS)
    assert [seen.count(MASK) for seen in model.seen] == [5, 3, 1]


def test_a_suppressed_id_is_never_chosen() -> None:
    model = Scripted({0: (SUPPRESSED, 9.0)})
    (ids,) = denoise(model, [prompt(0, 0)], Generation(1, 1, None, ()), WORDS)
    assert ids.tolist() == [0]


def test_a_prompt_that_holds_the_mask_embedding_is_left_alone() -> None:
    model = Scripted({0: (1, 1.0), 1: (2, 2.0)})
    (ids,) = denoise(model, [prompt(MASK, MASK)], Generation(2, 2, None, ()), WORDS)
    assert ids.tolist() == [1, 2]
    assert all(seen[:2] == [MASK, MASK] for seen in model.seen)


def test_the_answer_ends_before_the_first_stop_and_carries_the_suffix() -> None:
    model = Scripted({0: (1, 1.0), 1: (2, 5.0), 2: (2, 6.0), 3: (3, 0.5)})
    words = Words(MASK, (), stops=((2,),), suffix=(7, 7))
    (ids,) = denoise(model, [prompt(0, 0)], Generation(4, 4, None, ()), words)
    assert ids.tolist() == [1, 7, 7]
    assert len(model.seen) == 3  # position 3, behind the stop, is never needed


def test_behind_a_stop_that_was_found_only_the_first_of_them_is_looked_for() -> None:
    script = {0: (1, 1.0), 1: (3, 3.0), 2: (1, 2.0), 3: (3, 9.0)}
    words = Words(MASK, (), stops=((2,), (3,)))
    (ids,) = denoise(Scripted(script), [prompt(0, 0)], Generation(4, 4, None, ()), words)
    assert ids.tolist() == [1, 3, 1]  # the second stop ended it at 3, and is not seen at 1
    script[1] = (2, 3.0)
    (ids,) = denoise(Scripted(script), [prompt(0, 0)], Generation(4, 4, None, ()), words)
    assert ids.tolist() == [1]


def test_a_row_that_has_stopped_leaves_the_batch() -> None:
    model = Scripted({0: (2, 5.0), 1: (1, 4.0), 2: (1, 3.0), 3: (1, 2.0), 4: (1, 1.0)})
    words = Words(MASK, (), stops=((2,),))
    prompts = [prompt(0, 0), prompt(0, 0, 0)]  # the second is read one position later
    first, second = denoise(model, prompts, Generation(4, 4, None, ()), words)
    assert (first.tolist(), second.tolist()) == ([], [1, 1, 1, 1])
    assert model.batches == [2, 1, 1, 1]


@pytest.mark.parametrize("guidance", [0.0, 0.7])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_batch_gives_each_prompt_the_ids_it_gets_alone(
    guidance: float, temperature: float
) -> None:
    model = Averaging()
    prompts = [model.table[list(ids)] for ids in ([1], [2, 3, 4, 5], [6, 7])]
    settings = Generation(8, 4, 4, (), guidance=guidance, temperature=temperature)
    words = Words(MASK, (MASK,), stops=((3,),), suffix=(1,))
    together = denoise(model, prompts, settings, words, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    alone = [denoise(model, [one], settings, words, generator)[0] for one in prompts]
    assert [a.tolist() for a in together] == [a.tolist() for a in alone]


def test_guidance_moves_away_from_the_prediction_without_the_prompt() -> None:
    class Prompted(Scripted):
        def logits(
            self,
            embeddings: Float[Tensor, "B L D"],
            rows: Int[Tensor, "B R"],
            attended: Bool[Tensor, "B L"] | None = None,
        ) -> Float[Tensor, "B R V"]:
            scores = torch.zeros(*rows.shape, 10)
            scores[0, :, 1], scores[0, :, 2] = 2.0, 1.9  # with the prompt
            scores[1, :, 1], scores[1, :, 2] = 2.0, 0.0  # without it
            return scores

    settings = Generation(1, 1, None, (), guidance=0.5)
    (ids,) = denoise(Prompted({}), [prompt(0, 0)], settings, WORDS)
    assert ids.tolist() == [2]  # 0 + 1.5 * 1.9 = 2.85 against 2 + 1.5 * 0 = 2


def test_gumbel_noise_draws_from_the_tempered_softmax() -> None:
    model = Scripted({0: (1, 1.0)})
    rows = [prompt(0, 0)] * 4000
    settings = Generation(1, 1, None, (), temperature=0.5)
    drawn = denoise(model, rows, settings, Words(MASK), torch.Generator().manual_seed(0))
    share = torch.cat(drawn).eq(1).double().mean().item()
    expected = torch.tensor([2.0] + [0.0] * 9).softmax(0)[0].item()
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5


@pytest.mark.parametrize("settings", [Generation(5, 2), Generation(4, 2, 3), Generation(4, 4, 0)])
def test_a_schedule_that_does_not_divide_is_refused(settings: Generation) -> None:
    with pytest.raises(InvalidRequestError, match="multiple"):
        denoise(Scripted({}), [prompt(0, 0)], settings, WORDS)


def test_a_temperature_without_a_generator_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="generator"):
        denoise(Scripted({}), [prompt(0)], Generation(1, 1, temperature=1.0), WORDS)
    with pytest.raises(InvalidRequestError, match="generator"):
        denoise(Scripted({}), [prompt(0)], Generation(1, 1, remasking="random"), WORDS)


@pytest.mark.parametrize(("threshold", "passes"), [(None, 4), (1.0, 4), (0.9, 2), (0.1, 1)])
def test_what_the_model_is_sure_of_is_committed_at_once(threshold, passes):
    model = Scripted({0: (1, 9.0), 1: (2, 3.0), 2: (3, 9.0), 3: (4, 9.0)})
    how = Generation(length=4, block_length=4, parallel_threshold=threshold)
    (ids,) = denoise(model, [prompt(1, 1)], how, WORDS)
    assert ids.tolist() == [1, 2, 3, 4] and len(model.seen) == passes


def test_a_threshold_needs_a_confidence():
    how = Generation(length=4, block_length=4, parallel_threshold=0.5, remasking="entropy")
    with pytest.raises(InvalidRequestError, match="parallel_threshold"):
        denoise(Averaging(), [prompt(1)], how, WORDS)
