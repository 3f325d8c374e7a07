"""The net itself: what it finds, what it keeps, and that no reader escapes it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from disp_engine.data.documents import Parsed
from tests.fuzz.__main__ import LONGEST_SHIFT_S, shifts
from tests.fuzz.campaign import FAULT, Campaign, general, keep, prune
from tests.fuzz.readers import READERS
from tests.fuzz.shift import Shift, outcome_of

TWO_OF_A_KIND = (b"1 2\n", b"[11] 2\n")


def test_each_reader_has_its_minute() -> None:
    files = Path(__file__).parent.glob("test_*.py")
    lists = re.findall(r'parametrize\("reader", \[(.*)\]\)', "".join(f.read_text() for f in files))
    assert sorted(", ".join(lists).split(", ")) == sorted(f'"{name}"' for name in READERS)


def test_a_reader_that_takes_what_others_refuse_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of lines that lets trailing text pass."""
    monkeypatch.setattr("tests.fuzz.readers.read_records", _lenient)
    with pytest.raises((AssertionError, ValueError)):
        Campaign("jsonl").attempt(b"1 2\n")


def test_a_fault_is_kept_at_its_smallest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.fuzz.readers.read_records", _lenient)
    with pytest.raises((AssertionError, ValueError, ExceptionGroup)):
        Campaign("jsonl", tmp_path, keeping=True).run(20, first=0)
    kept = list((tmp_path / "jsonl").glob(f"{FAULT}*"))
    assert kept and min(path.stat().st_size for path in kept) < 100


def test_time_is_the_processors(tmp_path: Path) -> None:
    campaign = Campaign("jsonl", tmp_path)
    campaign.run(0.2, first=0)
    assert campaign.tried > len(campaign.reader.seeds())
    assert list(tmp_path.iterdir()) == []


def test_of_two_inputs_that_teach_the_same_the_smaller_stays(tmp_path: Path) -> None:
    for content in TWO_OF_A_KIND:
        keep(content, tmp_path / "jsonl")
    keep(TWO_OF_A_KIND[1], tmp_path / "jsonl", FAULT)
    assert prune("jsonl", tmp_path) == 2
    left = {
        path.name.startswith(FAULT): path.read_bytes() for path in (tmp_path / "jsonl").iterdir()
    }
    assert left == {False: TWO_OF_A_KIND[0], True: TWO_OF_A_KIND[1]}


def test_a_reason_is_the_same_for_other_names_and_numbers() -> None:
    assert general("the keys ['a', 'b'] of 12") == general("the keys ['c'] of 7")
    assert general("nested too deep") != general("cut off")


def test_time_is_parted_evenly_and_each_part_has_its_own_seed() -> None:
    parts = shifts("zip", 12.0, 5)
    assert [part.seed for part in parts] == [5, 6, 7]
    assert {part.seconds for part in parts} == {240.0}
    assert parts[0].seconds <= LONGEST_SHIFT_S and shifts("zip", 0.1, 5) == [Shift("zip", 6.0, 5)]


def test_an_input_that_kills_its_process_is_a_fault_and_kept(tmp_path: Path) -> None:
    (tmp_path / "last").write_bytes(b"deadly")
    outcome = outcome_of(CompletedProcess([], -11, b""), tmp_path / "last", tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    assert outcome.fault and kept.name.startswith(FAULT) and kept.read_bytes() == b"deadly"


def test_a_shift_answers_with_what_it_has_tried(tmp_path: Path) -> None:
    outcome = Shift("jsonl", 0.1, 0, tmp_path).run()
    assert outcome.tried >= 4 and outcome.cpu_s >= 0.1 and not outcome.fault


def _lenient(path: Path, name: str) -> Iterator[Parsed]:
    for number, line in enumerate(path.read_bytes().decode().split("\n"), 1):
        if text := line.strip():
            yield Parsed(json.JSONDecoder().raw_decode(text)[0], number)
