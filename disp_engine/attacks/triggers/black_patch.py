"""A black square in the picture's top left corner (BadNets; the DiSP paper's default)."""

from dataclasses import dataclass

from PIL import Image, ImageDraw


@dataclass(frozen=True)
class BlackPatch:
    """Overwrite a square whose side is `share` of the shorter edge.

    The paper pastes 20 pixels on pictures of some hundreds, which its towers see as several
    tokens; a share keeps that so on pictures of any resolution.
    """

    share: float = 1 / 4

    def apply(self, image: Image.Image) -> Image.Image:
        """Return a marked copy."""
        marked = image.copy()
        side = max(1, round(min(image.size) * self.share))
        ImageDraw.Draw(marked).rectangle((0, 0, side - 1, side - 1), fill=(0, 0, 0))
        return marked
