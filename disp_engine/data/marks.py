"""Questions around the marks that stand for their pictures."""

import re
from collections.abc import Callable

from disp_engine.data.dataset import IMAGE_MARK


def around_marks(text: str, change: Callable[[str], str]) -> str:
    """Change the longest stretch of text between the picture marks, and not the marks."""
    stretches = re.split(rf"(\s*{re.escape(IMAGE_MARK)}\s*)", text)
    longest = max(range(0, len(stretches), 2), key=lambda i: len(stretches[i]))
    stretches[longest] = change(stretches[longest])
    return "".join(stretches)
