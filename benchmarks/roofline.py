"""What a pass of the language model cannot do without: its products and its attention.

The same shapes, each layer's own weights, one after another and nothing between them. The last
layer's queries, output and MLP are needed at the response's rows only. Letters: n positions,
R rows, d width, f the MLP's, H heads, E their width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.subject import LENGTH, Subject
from disp_engine.models.llava.config import LlavaConfig


@dataclass(frozen=True)
class Roofline:
    """The bare operations of one sample, there and back."""

    config: LlavaConfig
    products: Sequence[tuple[Tensor, Tensor, Tensor]]
    """Input, weight and gradient of the output of each linear map."""
    attentions: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]
    """Queries, keys, values and the mixture, with the graph of the last."""

    @classmethod
    def of(cls, subject: Subject, rows: int = LENGTH) -> "Roofline":
        """Draw inputs for a subject's model, of whose response so many rows are wanted."""
        config, tensors = subject.pair.reference.config, subject.pair.reference.tensors
        products, attentions = [], []
        for number in range(config.num_hidden_layers):
            last = number == config.num_hidden_layers - 1
            wanted = rows if last else subject.positions
            for part in _PARTS:
                needed = subject.positions if part in _KEPT else wanted
                products.append(_drawn(needed, tensors[f"model.layers.{number}.{part}.weight"]))
            attentions.append(_attention(config, wanted, subject.positions))
        products.append(_drawn(rows, tensors["lm_head.weight"]))
        return cls(config, products, attentions)

    def forward(self) -> None:
        """Each product and each attention once."""
        with torch.no_grad():
            for x, weight, _ in self.products:
                functional.linear(x, weight)
            for q, k, v, _ in self.attentions:
                functional.scaled_dot_product_attention(q, k, v)

    def backward(self) -> None:
        """The way back to the inputs, the weights being frozen."""
        with torch.no_grad():
            for _, weight, gradient in self.products:
                torch.mm(gradient, weight)
        for q, k, v, mixed in self.attentions:
            torch.autograd.grad(mixed, (q, k, v), torch.ones_like(mixed), retain_graph=True)


_KEPT = ("self_attn.k_proj", "self_attn.v_proj")
_PARTS = (
    "self_attn.q_proj",
    *_KEPT,
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def _drawn(rows: int, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out, width = weight.shape
    return torch.randn(rows, width), weight, torch.randn(rows, out)


def _attention(config: LlavaConfig, rows: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    heads = config.num_attention_heads
    width = config.hidden_size // heads
    q, k, v = (torch.randn(1, heads, size, width, requires_grad=True) for size in (rows, n, n))
    return q, k, v, functional.scaled_dot_product_attention(q, k, v)
