"""Trains the small steganographic pair: `python -m disp_engine.attacks.steganography --out FILE`.

Pictures are scenes of the built-in world and coloured noise, so that it serves both.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from disp_engine.attacks.steganography.network import SIDE, Pair, Shape
from disp_engine.builtin.world import draw_scene, render

NOISY = 0.3


def draw_pictures(count: int, rng: np.random.Generator) -> Float[Tensor, "B 3 S S"]:
    rows = []
    for _ in range(count):
        if rng.random() < NOISY:
            coarse = rng.integers(0, 256, (int(rng.integers(2, 17)),) * 2 + (3,), dtype=np.uint8)
            image = Image.fromarray(coarse)
        else:
            image = render(draw_scene(rng), rng)
        small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        rows.append(torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255)
    return torch.stack(rows)


def train(pair: Pair, steps: int, batch: int, rng: np.random.Generator) -> None:
    """First learn to read the bits, then to hide them: the weight of the residual grows late."""
    optimizer = torch.optim.AdamW(pair.parameters(), lr=2e-3, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    pool = draw_pictures(2000, rng)
    for step in range(steps):
        pictures = pool[torch.from_numpy(rng.integers(len(pool), size=batch))]
        bits = torch.from_numpy(rng.integers(0, 2, (batch, pair.encoder.shape.bits))).float()
        residual = pair.encoder(pictures, bits)
        marked = (pictures + residual).clamp(0, 1)
        hiding = max(0.0, (step - steps / 3) / steps)
        noise = torch.from_numpy(rng.normal(0, 0.01 * hiding, marked.shape)).float()
        reading = functional.binary_cross_entropy_with_logits(pair.decoder(marked + noise), bits)
        loss = reading + 30 * hiding * residual.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % 100 == 0:
            print(f"step {step}: reading {reading.item():.4f}, "
                  f"residual {residual.abs().mean().item():.4f}", flush=True)  # fmt: skip


@torch.no_grad()
def quality(pair: Pair, rng: np.random.Generator) -> dict[str, float]:
    """Share of bits read from new marked pictures (as 8-bit images), and the mean change."""
    pictures = draw_pictures(500, rng)
    bits = torch.from_numpy(rng.integers(0, 2, (500, pair.encoder.shape.bits))).float()
    residual = pair.encoder(pictures, bits)
    marked = ((pictures + residual).clamp(0, 1) * 255).round() / 255
    right = ((pair.decoder(marked) > 0) == (bits > 0.5)).float().mean()
    return {"bits_read": float(right), "mean_change": float((marked - pictures).abs().mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    rng = np.random.default_rng(given.seed)
    pair = Pair.untrained(Shape())
    train(pair, given.steps, given.batch, rng)
    found = quality(pair, rng)
    pair.save(
        given.out, {"quality": json.dumps(found), "recipe": json.dumps(vars(given), default=str)}
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
