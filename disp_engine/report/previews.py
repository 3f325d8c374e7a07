"""Small pictures of samples in one file, for people who look at what was found.

They are decoded and encoded anew, so nothing of an uploaded file's own bytes reaches a browser.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from disp_engine.data.dataset import Dataset
from disp_engine.errors import SampleError
from disp_engine.records import Sample

MOST = 2000
"""Samples that get a preview: those of the highest scores, then the first ones."""
SIDE = 384
EXACT = 160
"""Pictures up to this side are kept pixel by pixel."""


def write_previews(
    dataset: Dataset, samples: Sequence[Sample], scores: Mapping[str, float], path: Path
) -> dict[str, dict[str, Any]]:
    """Write the previews one behind the other; return each one's place, by sample id."""
    found: dict[str, dict[str, Any]] = {}
    shown = sorted(
        (s for s in samples if s.images), key=lambda s: scores.get(s.id, 0.0), reverse=True
    )
    with path.open("wb") as file:
        for sample in shown[:MOST]:
            try:
                content, entry = preview(dataset.image(sample.images[0]))
            except SampleError:  # it is quarantined for this very reason
                continue
            found[sample.id] = {"offset": file.tell(), "bytes": len(content)} | entry
            file.write(content)
    return found


def preview(image: Image.Image) -> tuple[bytes, dict[str, Any]]:
    """A PNG of a small picture, a JPEG of a larger one, and what a page must know of it."""
    content = io.BytesIO()
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    kind = "PNG" if max(image.size) <= EXACT else "JPEG"
    small.save(content, kind, **({} if kind == "PNG" else {"quality": 85}))
    media_type = f"image/{kind.lower()}"
    return content.getvalue(), {"type": media_type, "width": small.width, "height": small.height}
