"""Eq. 1."""

import torch

from disp_engine.diffusion.forward import mask_tokens


def test_a_position_is_masked_when_its_draw_lies_strictly_below_p() -> None:
    t = torch.tensor([0.5])
    p = 0.999 * t + 0.001
    u = torch.stack([p - 1e-4, p, p + 1e-4], dim=1)
    masking = mask_tokens(torch.ones(1, 3, dtype=torch.bool), t, u)
    assert masking.masked.tolist() == [[True, False, False]]


def test_unlabelled_positions_are_never_masked() -> None:
    labelled = torch.tensor([[True, False]])
    masking = mask_tokens(labelled, torch.ones(1), torch.zeros(1, 2))
    assert masking.masked.tolist() == [[True, False]]


def test_the_probability_runs_from_a_thousandth_to_one() -> None:
    masking = mask_tokens(
        torch.ones(2, 1, dtype=torch.bool), torch.tensor([0.0, 1.0]), torch.zeros(2, 1)
    )
    torch.testing.assert_close(masking.p, torch.tensor([0.001, 1.0]))
