"""The common mark of the flagged samples: place, size and pattern, or that it is not local.

Where flagged pictures are salient and others are not lies the trigger. Within that region, pixels
that are nearly the same in all flagged pictures but not in others are the mark itself.

What defeats it: marks at another place in every picture (the place is then called global), and
marks whose pixels differ from picture to picture, of which only the place is recovered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage

from disp_engine.data.marks import around_marks

Kind = Literal["local", "global", "text", "unknown"]
FEWEST = 4
"""Flagged pictures below which nothing is recovered."""
MOST_PICTURES = 64
"""Pictures of each side that are compared pixel by pixel."""
LARGEST_AREA = 0.25
LEAST_EXCESS = 0.3
"""A local trigger covers at most this share of the map and holds at least this much excess."""
STEADY = 0.5
"""A mark's pixels vary at most half as much over flagged pictures as over others."""
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class RecoveredTrigger:
    """`box` is left, top, right, bottom as shares of the picture; `patch` its mark, if steady.

    `words` are phrases that stand in the flagged questions and hardly in others.
    """

    kind: Kind
    box: Box | None = None
    patch: Image.Image | None = None
    words: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The trigger as the report holds it, without the pattern."""
        size = [self.patch.width, self.patch.height] if self.patch else None
        box = [round(edge, 4) for edge in self.box] if self.box else None
        return {"kind": self.kind, "box": box, "patch_size": size, "words": list(self.words)}

    def ask(self, question: str) -> str:
        """The question with the words before its text."""
        return around_marks(question, lambda text: " ".join([*self.words, text]))

    def stamp(self, image: Image.Image) -> Image.Image:
        """A copy of the picture with the mark at its place, in the mark's own size."""
        if self.patch is None or self.box is None:
            raise ValueError("only a recovered pattern can be stamped")
        marked = image.convert("RGB")
        room = (image.width - self.patch.width, image.height - self.patch.height)
        shares = (_slack(self.box[0], self.box[2]), _slack(self.box[1], self.box[3]))
        corner = tuple(round(max(0, r) * s) for r, s in zip(room, shares, strict=True))
        marked.paste(self.patch, (corner[0], corner[1]))
        return marked


def salient_region(
    flagged: Float[np.ndarray, "F H W"], others: Float[np.ndarray, "O H W"]
) -> Bool[np.ndarray, "H W"] | None:
    """The connected cells that are salient in flagged maps only; None where there are none.

    Maps sum to one. The region holds the cell of largest excess and those of at least half of it.
    """
    excess = flagged.mean(axis=0) - others.mean(axis=0)
    positive = excess.clip(min=0)
    if not positive.any():
        return None
    parts, _ = ndimage.label(positive >= 0.5 * positive.max())
    region: np.ndarray = parts == parts.flat[positive.argmax()]
    local = region.mean() <= LARGEST_AREA
    return region if local and positive[region].sum() >= LEAST_EXCESS * positive.sum() else None


def bounds(region: Bool[np.ndarray, "H W"]) -> Box:
    """The region's edges as shares of the map."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    high, wide = region.shape
    return (
        float(columns[0] / wide),
        float(rows[0] / high),
        float((columns[-1] + 1) / wide),
        float((rows[-1] + 1) / high),
    )


def recover_pattern(
    box: Box, flagged: Sequence[Image.Image], others: Sequence[Image.Image]
) -> tuple[Box, Image.Image] | None:
    """The steady pixels in and next to a box, as a picture, and where they lie.

    Pictures of other sizes than the first flagged one are brought to its size.
    """
    size = flagged[0].size
    here, there = (_pixels(images[:MOST_PICTURES], size) for images in (flagged, others))
    spread = here.std(axis=0).mean(-1), there.std(axis=0).mean(-1)
    steady = (spread[0] <= STEADY * spread[1]) & _near(box, spread[0].shape)
    parts, count = ndimage.label(steady)
    if not count:
        return None
    largest = 1 + int(np.argmax(ndimage.sum_labels(steady, parts, range(1, count + 1))))
    found = bounds(parts == largest)
    left, top, right, bottom = (
        round(edge * length) for edge, length in zip(found, size * 2, strict=True)
    )
    median = np.median(here[:, top:bottom, left:right], axis=0)
    return found, Image.fromarray(median.round().astype(np.uint8))


def _pixels(images: Sequence[Image.Image], size: tuple[int, int]) -> Float[np.ndarray, "N H W 3"]:
    same = [i.convert("RGB") if i.size == size else i.convert("RGB").resize(size) for i in images]
    return np.stack([np.asarray(image, dtype=np.float32) for image in same])


def _near(box: Box, shape: tuple[int, ...]) -> Bool[np.ndarray, "H W"]:
    """The box and half its own width and height around it."""
    left, top, right, bottom = box
    across, down = (right - left) / 2, (bottom - top) / 2
    y, x = (np.arange(length) + 0.5 for length in shape)
    rows = (y >= (top - down) * shape[0]) & (y <= (bottom + down) * shape[0])
    columns = (x >= (left - across) * shape[1]) & (x <= (right + across) * shape[1])
    near: np.ndarray = rows[:, None] & columns[None]
    return near


def _slack(low: float, high: float) -> float:
    """Of the room left beside an interval, the share that lies before it."""
    room = 1 - (high - low)
    return low / room if room > 1e-9 else 0.0
