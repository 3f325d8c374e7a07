"""The built-in world: small pictures of coloured shapes, and what can truthfully be said of them.

A scene is one or two shapes on a plain ground, each in a quadrant of its own, at a jittered
place and size, under light sensor noise. Everything is drawn here from a seed.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

COLOURS = {
    "red": (205, 35, 35),
    "green": (30, 150, 50),
    "blue": (40, 70, 215),
    "yellow": (235, 215, 40),
    "purple": (135, 45, 165),
    "orange": (245, 135, 25),
}
SHAPES = ("circle", "square", "triangle", "cross")
GROUNDS = {
    "white": (245, 245, 245),
    "gray": (150, 150, 150),
    "pink": (250, 190, 205),
    "teal": (60, 160, 165),
}
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
SIZE = 64
"""Side of a picture in pixels."""


@dataclass(frozen=True)
class Figure:
    """One shape: its kind, colour, quadrant, centre and half side in pixels."""

    shape: str
    colour: str
    quadrant: int
    centre: tuple[float, float]
    radius: float

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape} at the {QUADRANTS[self.quadrant]}".replace(
            "a orange", "an orange"
        )

    def covers(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Mark the pixels (x, y) that lie on the figure."""
        dx, dy = (x - self.centre[0]) / self.radius, (y - self.centre[1]) / self.radius
        match self.shape:
            case "circle":
                return dx**2 + dy**2 <= 1
            case "square":
                return np.maximum(abs(dx), abs(dy)) <= 0.88
            case "triangle":
                return (abs(dx) <= (dy + 1) / 2) & (abs(dy) <= 1)
            case _:
                bar = 0.36
                inside = np.maximum(abs(dx), abs(dy)) <= 1
                return inside & (np.minimum(abs(dx), abs(dy)) <= bar)


@dataclass(frozen=True)
class Scene:
    """One or two figures, in the order of their quadrants, on a ground."""

    figures: tuple[Figure, ...]
    ground: str

    def caption(self) -> str:
        """Say all there is to say of the scene, in one fixed grammar."""
        text = " and ".join(str(figure) for figure in self.figures)
        return f"{text[0].upper()}{text[1:]} on {self.ground}."


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene's content."""
    count = int(rng.integers(1, 3))
    quadrants = sorted(int(q) for q in rng.choice(4, size=count, replace=False))
    figures = []
    for quadrant in quadrants:
        radius = float(rng.uniform(10.5, 14))
        jitter = rng.uniform(-2.5, 2.5, size=2)
        column, row = quadrant % 2, quadrant // 2
        centre = (SIZE * (1 + 2 * column) / 4 + jitter[0], SIZE * (1 + 2 * row) / 4 + jitter[1])
        figures.append(
            Figure(
                shape=SHAPES[rng.integers(len(SHAPES))],
                colour=list(COLOURS)[rng.integers(len(COLOURS))],
                quadrant=quadrant,
                centre=centre,
                radius=radius,
            )
        )
    return Scene(tuple(figures), list(GROUNDS)[rng.integers(len(GROUNDS))])


def render(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Paint a scene with light noise."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    pixels = np.empty((SIZE, SIZE, 3))
    pixels[:] = GROUNDS[scene.ground]
    for figure in scene.figures:
        pixels[figure.covers(x, y)] = COLOURS[figure.colour]
    pixels += rng.normal(0, 4, size=pixels.shape) + rng.normal(0, 4, size=3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
