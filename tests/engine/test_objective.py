"""Eq. 2."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from disp_engine.diffusion.forward import Masking
from disp_engine.diffusion.objective import diffusion_loss
from disp_engine.diffusion.surprise import linear_surprise, surprise

VOCABULARY = 8


def uniform(hidden: Tensor) -> Tensor:
    """Logits that give every word the probability 1/8."""
    return hidden.sum(dim=-1, keepdim=True).expand(-1, VOCABULARY)


def test_each_row_is_weighted_by_its_probability_and_its_labelled_length() -> None:
    labelled = torch.tensor([[True, True, False], [True, True, True]])
    masked = torch.tensor([[True, False, False], [True, True, False]])
    masking = Masking(masked, p=torch.tensor([0.5, 0.25]))
    hidden = torch.zeros(3, 4, requires_grad=True)
    labels = torch.zeros(2, 3, dtype=torch.long)
    losses = surprise(hidden, labels[masked], uniform)
    loss = diffusion_loss(losses, labelled, masking)
    by_hand = math.log(VOCABULARY) * (1 / (0.5 * 2) + 2 / (0.25 * 3)) / 2
    assert math.isclose(loss.item(), by_hand, rel_tol=1e-6)


def test_nothing_masked_gives_a_loss_of_zero_that_can_be_differentiated() -> None:
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    hidden = torch.zeros(0, 4, requires_grad=True)
    labels = torch.full((1, 2), -100)
    masking = Masking(nothing, p=torch.tensor([0.001]))
    loss = diffusion_loss(surprise(hidden, labels[nothing], uniform), nothing, masking)
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None


@pytest.mark.parametrize("learns", [False, True])
def test_chunks_of_logits_do_not_change_losses_and_gradients(learns: bool) -> None:
    torch.manual_seed(0)
    head = torch.randn(VOCABULARY, 4, requires_grad=learns)
    labels, weights = torch.randint(VOCABULARY, (3000,)), torch.rand(3000)
    hidden = torch.randn(3000, 4, requires_grad=True)
    losses = linear_surprise(hidden, labels, head)
    inputs = (hidden, head) if learns else (hidden,)
    told = functional.cross_entropy(hidden @ head.T, labels, reduction="none")
    torch.testing.assert_close(losses, told)
    got, want = (torch.autograd.grad((x * weights).sum(), inputs) for x in (losses, told))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_a_frozen_heads_gradient_is_rounded_like_its_weights() -> None:
    torch.manual_seed(0)
    head, labels = torch.randn(VOCABULARY, 4).bfloat16(), torch.randint(VOCABULARY, (50,))
    hidden = torch.randn(50, 4).bfloat16().requires_grad_()
    told = functional.cross_entropy((hidden @ head.T).float(), labels, reduction="none")
    losses = linear_surprise(hidden, labels, head)
    torch.testing.assert_close(losses, told)
    (got,), (want,) = (torch.autograd.grad(x.mean(), hidden) for x in (losses, told))
    assert got.dtype == torch.bfloat16
    assert float((got - want).norm() / want.norm()) < 0.01
