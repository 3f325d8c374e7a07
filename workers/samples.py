"""What lists show of a job's samples, read from its published `samples.jsonl`."""

import json
from collections.abc import Iterator
from typing import Any

from schemas.artifacts import Manifest
from storage.interfaces import ArtifactStore, SampleEntry

SAMPLES = "samples.jsonl"
LONGEST = 240
"""Characters of a response that a list shows."""


def sample_entries(artifacts: ArtifactStore, manifest: Manifest) -> Iterator[SampleEntry]:
    """Yield an entry for each line, holding one chunk and one line at a time."""
    item = next(entry for entry in manifest.artifacts if entry.name == SAMPLES)
    start, rest, position = 0, b"", 0
    for chunk in artifacts.open(item.key):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield _entry(json.loads(line), position, start, len(line))
            position, start = position + 1, start + len(line) + 1
    if rest:
        yield _entry(json.loads(rest), position, start, len(rest))


def _entry(line: dict[str, Any], position: int, start: int, length: int) -> SampleEntry:
    changed = line.get("changed")
    return SampleEntry(
        position=position,
        sample_id=_text(line["id"]),
        status=line["status"],
        verdict=None if changed is None else "changed" if changed else "unchanged",
        flagged=bool(line.get("flagged")),
        score=line.get("score"),
        start=start,
        bytes=length,
        said=_beginning(line.get("original")),
        says=_beginning(line.get("purified")),
    )


def _beginning(responses: list[str] | None) -> str:
    first = _text(responses[0]) if responses else ""
    return first if len(first) <= LONGEST else first[: LONGEST - 1] + "…"


def _text(given: str) -> str:
    """Text as every database takes it."""
    return given.replace("\0", "\ufffd")
