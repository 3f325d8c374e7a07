"""Encoder and decoder, after StegaStamp (Tancik et al., CVPR 2020) at a fraction of its size.

Both work on pictures of SIDE x SIDE; larger pictures are scaled down and the residual up again.
Values are in [0, 1].
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from disp_engine.errors import InvalidRequestError

SIDE = 32
COARSE = 8
STRENGTH = 0.2
"""Largest change of a value."""


@dataclass(frozen=True)
class Shape:
    """Number of hidden bits and width of the convolutions."""

    bits: int = 16
    width: int = 24


class Encoder(nn.Module):
    """Bits and a picture to the residual that is added to the picture."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, w = shape, shape.width
        self.secret = nn.Linear(shape.bits, 3 * COARSE * COARSE)
        self.first = nn.Conv2d(6, w, 3, padding=1)
        self.down = nn.Conv2d(w, w, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(w, w, 3, padding=1)
        self.up = nn.Conv2d(2 * w, w, 3, padding=1)
        self.last = nn.Conv2d(w, 3, 3, padding=1)
        nn.init.normal_(self.last.weight, std=0.2)  # seen by the decoder from the first step

    def forward(
        self, pictures: Float[Tensor, "B 3 S S"], bits: Float[Tensor, "B n"]
    ) -> Float[Tensor, "B 3 S S"]:
        """The residual, within STRENGTH."""
        coarse = self.secret(2 * bits - 1).view(-1, 3, COARSE, COARSE)
        spread = functional.interpolate(coarse, pictures.shape[-2:], mode="nearest")
        fine = self.first(torch.cat([pictures - 0.5, spread], dim=1)).relu()
        deep = self.deep(self.down(fine).relu()).relu()
        wide = functional.interpolate(deep, fine.shape[-2:], mode="nearest")
        residual: Tensor = self.last(self.up(torch.cat([fine, wide], dim=1)).relu())
        return STRENGTH * residual.tanh()


class Decoder(nn.Module):
    """A marked picture to the logits of its bits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        w = shape.width
        self.layers = nn.Sequential(
            nn.Conv2d(3, w, 3, padding=1), nn.ReLU(),
            nn.Conv2d(w, w, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(2 * w * COARSE * COARSE, shape.bits),
        )  # fmt: skip

    def forward(self, pictures: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B n"]:
        """One logit for each bit."""
        logits: Tensor = self.layers(pictures - 0.5)
        return logits


@dataclass(frozen=True)
class Pair:
    """An encoder and the decoder that was trained with it."""

    encoder: Encoder
    decoder: Decoder

    @classmethod
    def untrained(cls, shape: Shape) -> "Pair":
        """Fresh weights from torch's global generator."""
        return cls(Encoder(shape), Decoder(shape))

    @classmethod
    def from_file(cls, path: Path) -> "Pair":
        """Read a safetensors file that `save` wrote; its header holds the shape."""
        try:
            with safe_open(path, framework="pt") as file:
                shape = Shape(**json.loads((file.metadata() or {})["shape"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            pair = cls.untrained(shape)
            pair._modules().load_state_dict(tensors)
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise InvalidRequestError(f"{path.name}: not a steganographic pair: {error}") from error
        pair._modules().eval().requires_grad_(False)
        return pair

    def save(self, path: Path, facts: Mapping[str, str]) -> None:
        """Write both networks, with `facts` beside the shape in the header."""
        shape = json.dumps(asdict(self.encoder.shape))
        save_file(self._modules().state_dict(), path, metadata={"shape": shape, **facts})

    def parameters(self) -> list[nn.Parameter]:
        """All weights."""
        return list(self._modules().parameters())

    def _modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": self.encoder, "decoder": self.decoder})
