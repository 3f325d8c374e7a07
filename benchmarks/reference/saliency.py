"""Algorithm 1, lines 5 to 9, with the practice of section 3.3: the K largest logits of each row."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmarks.reference.llama import Llama


def scores(
    model: Llama,
    prompt: Float[Tensor, "P D"],
    visual: Bool[Tensor, " P"],
    e_mask: Float[Tensor, " D"],
    *,
    rows: int,
    probes: int,
    kept: int,
    seed: int,
) -> Float[Tensor, " Lv"]:
    """Scores of the visual tokens: for each probe a forward and a backward pass of its own.

    What the backward pass also computes, the weights' gradients among it, is the caller's choice
    (`Llama.unfrozen`).
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn((probes, rows, kept), generator=generator, dtype=torch.float64)
    total = torch.zeros(len(prompt), dtype=torch.float64, device=prompt.device)
    for j in range(probes):
        e_0 = torch.cat([prompt, e_mask.expand(rows, -1)]).detach().requires_grad_()
        logits = model.logits(e_0[None])[0].double()
        z, _ = logits[-rows:].topk(kept)
        p = z.detach().softmax(-1)  # line 5
        q = (_root_of_fisher(p) @ y[j].to(p.device)[..., None])[..., 0]  # line 7
        (q * z).sum().backward()  # line 8
        assert e_0.grad is not None
        g = e_0.grad[: len(prompt)].double()
        total += (g * (e_mask - prompt).double()).sum(-1) ** 2  # line 9
        _forget(model)
    return (total / (2 * probes))[visual].cpu()


def _root_of_fisher(p: Float[Tensor, "T K"]) -> Float[Tensor, "T K K"]:
    """B with B B^T = F = diag(p) - p p^T (line 6): diag(sqrt p) - p sqrt(p)^T."""
    root = p.sqrt()
    return torch.diag_embed(root) - p[:, :, None] * root[:, None, :]


def _forget(model: Llama) -> None:
    for weight in model.tensors.values():
        weight.grad = None
