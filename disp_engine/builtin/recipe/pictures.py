"""Pictures of the world in bulk, with the labels that supervise the tower."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from disp_engine.builtin.world import COLOURS, GROUNDS, SHAPES, SIZE, Scene, draw_scene, render

PATCH = 8
GRID = SIZE // PATCH
OTHER = len(COLOURS) + len(GROUNDS)
"""Colour class of a patch that is neither figure nor ground: a sticker, a black square, noise."""


@dataclass(frozen=True)
class Pictures:
    """N scenes as `pixels` [N S S 3] uint8 with labels.

    `colour`, `shape` [N G*G]: class of what each patch shows (colours, grounds, OTHER; shapes,
    none). `facts` [N 9]: colour and shape of each quadrant's figure (or none) and the ground.
    """

    scenes: list[Scene]
    pixels: np.ndarray
    colour: np.ndarray
    shape: np.ndarray
    facts: np.ndarray


def draw_pictures(count: int, rng: np.random.Generator, stickers: float) -> Pictures:
    """Draw `count` scenes; a share of `stickers` carries a meaningless patch somewhere.

    The patches teach the tower and the language model that a sticker changes nothing that is
    asked for, as models trained on photographs know.
    """
    scenes = [draw_scene(rng) for _ in range(count)]
    drawn = [_draw(scene, rng, rng.random() < stickers) for scene in scenes]
    pixels, colour, shape, facts = (np.stack(part) for part in zip(*drawn, strict=True))
    return Pictures(scenes, pixels, colour, shape, facts)


def _draw(scene: Scene, rng: np.random.Generator, sticker: bool) -> tuple[np.ndarray, ...]:
    pixels = np.array(render(scene, rng))
    colour, shape = _patch_labels(scene)
    if sticker:
        _stick(pixels, colour, shape, rng)
    return pixels, colour.ravel(), shape.ravel(), _facts(scene)


def _patch_labels(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    colour = np.full((GRID, GRID), len(COLOURS) + list(GROUNDS).index(scene.ground))
    shape = np.full((GRID, GRID), len(SHAPES))
    for figure in scene.figures:
        share = figure.covers(x, y).reshape(GRID, PATCH, GRID, PATCH).mean(axis=(1, 3))
        colour[share > 0.25] = list(COLOURS).index(figure.colour)
        shape[share > 0.1] = SHAPES.index(figure.shape)
    return colour, shape


def _stick(
    pixels: np.ndarray, colour: np.ndarray, shape: np.ndarray, rng: np.random.Generator
) -> None:
    side = int(rng.integers(5, 11))
    column, row = rng.integers(0, SIZE - side + 1, size=2)
    kind = rng.integers(4)
    if kind == 0:
        content = np.zeros(3)
    elif kind == 1:
        content = rng.uniform(0, 255, size=3)
    else:
        content = rng.normal(128, 70, size=(side, side, 3)).clip(0, 255)
    pixels[row : row + side, column : column + side] = content
    inside = np.zeros((SIZE, SIZE))
    inside[row : row + side, column : column + side] = 1
    covered = inside.reshape(GRID, PATCH, GRID, PATCH).mean(axis=(1, 3)) > 0.5
    colour[covered], shape[covered] = OTHER, len(SHAPES)


def _facts(scene: Scene) -> np.ndarray:
    facts = np.full(9, -1)
    facts[0:4], facts[4:8] = len(COLOURS), len(SHAPES)
    for figure in scene.figures:
        facts[figure.quadrant] = list(COLOURS).index(figure.colour)
        facts[4 + figure.quadrant] = SHAPES.index(figure.shape)
    facts[8] = list(GROUNDS).index(scene.ground)
    return facts


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """[N S S 3] to [N side side 3], as a processor resizes what it is given."""
    if side == pixels.shape[1]:
        return pixels
    shape = (side, side)
    shown = (Image.fromarray(one).resize(shape, Resampling.BICUBIC) for one in pixels)
    return np.stack([np.array(one) for one in shown])


def image(pictures: Pictures, index: int) -> Image.Image:
    """One of the pictures as an image."""
    return Image.fromarray(pictures.pixels[index])
