"""Eq. 2."""

import math

import torch
from torch import Tensor

from disp_engine.diffusion.forward import Masking
from disp_engine.diffusion.objective import diffusion_loss

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
    loss = diffusion_loss(hidden, labels, labelled, masking, uniform)
    by_hand = math.log(VOCABULARY) * (1 / (0.5 * 2) + 2 / (0.25 * 3)) / 2
    assert math.isclose(loss.item(), by_hand, rel_tol=1e-6)


def test_nothing_masked_gives_a_loss_of_zero_that_can_be_differentiated() -> None:
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    hidden = torch.zeros(0, 4, requires_grad=True)
    labels = torch.full((1, 2), -100)
    masking = Masking(nothing, p=torch.tensor([0.001]))
    loss = diffusion_loss(hidden, labels, nothing, masking, uniform)
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None


def test_chunks_of_logits_do_not_change_the_gradient() -> None:
    torch.manual_seed(0)
    head = torch.randn(4, VOCABULARY, dtype=torch.float64)
    labels = torch.randint(VOCABULARY, (1, 3000))
    everything = torch.ones(1, 3000, dtype=torch.bool)
    hidden = torch.randn(3000, 4, requires_grad=True)
    masking = Masking(everything, p=torch.tensor([1.0]))
    loss = diffusion_loss(hidden, labels, everything, masking, lambda rows: rows.double() @ head)
    (gradient,) = torch.autograd.grad(loss, hidden)
    probabilities = (hidden.detach().double() @ head).softmax(-1)
    residual = probabilities - torch.nn.functional.one_hot(labels[0], VOCABULARY)
    torch.testing.assert_close(gradient.double(), residual @ head.T / 3000, rtol=1e-4, atol=1e-8)
