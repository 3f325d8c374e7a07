"""Samples as CSV that a spreadsheet shows and does not run."""

import csv
import io
from collections.abc import Iterable, Iterator

from storage.interfaces import SampleEntry

COLUMNS = ("id", "status", "verdict", "flagged", "score", "response", "rewritten_response")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_lines(entries: Iterable[SampleEntry]) -> Iterator[str]:
    """Yield the header and a line for each entry."""
    yield _line(COLUMNS)
    for entry in entries:
        score = "" if entry.score is None else f"{entry.score:.3f}"
        texts = [entry.sample_id, entry.status, entry.verdict or ""]
        flagged = "yes" if entry.flagged else "no"
        said = [inert(entry.said), inert(entry.says)]
        yield _line([*map(inert, texts), flagged, score, *said])


def inert(text: str) -> str:
    """The text with an apostrophe in front where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()
