import pytest
import torch

from disp_engine.records import Embedded
from disp_engine.saliency.masking import at_random, hide, hide_text, most_salient


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (0.3, 1), (0.5, 2), (1.0, 5)])
def test_the_floor_of_the_ratio_is_masked(ratio: float, count: int) -> None:
    scores = torch.tensor([3.0, 1.0, 5.0, 2.0, 4.0])
    chosen = most_salient(scores, ratio)
    assert int(chosen.sum()) == count
    assert set(scores[chosen].tolist()) == set(scores.sort(descending=True).values[:count].tolist())


def test_random_masking_hides_as_many_tokens_and_follows_its_generator() -> None:
    first = at_random(50, 0.3, torch.Generator().manual_seed(1))
    again = at_random(50, 0.3, torch.Generator().manual_seed(1))
    other = at_random(50, 0.3, torch.Generator().manual_seed(2))
    assert int(first.sum()) == 15
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_hiding_replaces_exactly_the_chosen_visual_tokens_of_all_pictures() -> None:
    embeddings = torch.arange(12.0).reshape(6, 2)
    prompt = Embedded(embeddings, spans=((1, 3), (4, 6)))
    e_mask = torch.tensor([-1.0, -2.0])
    hidden = hide(prompt, torch.tensor([False, True, True, False]), e_mask)
    changed = (hidden.embeddings != embeddings).any(dim=1)
    assert changed.tolist() == [False, False, True, False, True, False]
    assert hidden.embeddings[2].tolist() == [-1.0, -2.0]
    assert torch.equal(prompt.embeddings, torch.arange(12.0).reshape(6, 2))


def test_hiding_text_leaves_visual_tokens_and_replaces_the_floor_of_the_ratio() -> None:
    embeddings = torch.arange(16.0).reshape(8, 2)
    prompt = Embedded(embeddings, spans=((1, 3),))
    e_mask = torch.tensor([-1.0, -2.0])
    found = hide_text(prompt, 0.5, e_mask, torch.Generator().manual_seed(0))
    changed = (found.embeddings != embeddings).any(dim=1)
    assert int(changed.sum()) == 3 and not changed[1:3].any()
    assert (found.embeddings[changed] == e_mask).all()
    again = hide_text(prompt, 0.5, e_mask, torch.Generator().manual_seed(1))
    assert not torch.equal(again.embeddings, found.embeddings), "drawn at random"
