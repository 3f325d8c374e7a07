"""A short campaign against each reader, beginning with what longer ones have kept."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from disp_engine.data.documents import Parsed
from tests.fuzz.campaign import Campaign
from tests.fuzz.readers import READERS

SECONDS = float(os.environ.get("DISP_FUZZ_SECONDS", "1.5"))


@pytest.mark.parametrize("name", READERS)
def test_a_reader_refuses_on_purpose_or_reads_what_others_read(name: str) -> None:
    campaign = Campaign(name)
    campaign.run(SECONDS, first=0)
    assert campaign.accepted > 0 and campaign.reasons


def test_a_reader_that_takes_what_others_refuse_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The net itself: a reader of lines that lets trailing text pass."""
    monkeypatch.setattr("tests.fuzz.readers.read_records", _lenient)
    with pytest.raises((AssertionError, ValueError)):
        Campaign("jsonl").attempt(b"1 2\n")


def _lenient(path: Path, name: str) -> Iterator[Parsed]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        yield Parsed(json.JSONDecoder().raw_decode(line)[0], number)
