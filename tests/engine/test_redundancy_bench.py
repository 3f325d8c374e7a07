"""The comparison of scores on redundant triggers, at sizes that show nothing but that it runs."""

import json
from pathlib import Path

import torch

from benchmarks.redundancy import found_tokens, main


def test_found_tokens_are_counted_in_part_and_whole() -> None:
    marked = torch.tensor([True, True, False, False])
    masks = [
        torch.tensor(mask) for mask in ([True, True, False, False], [True, False, True, False])
    ]
    found = found_tokens(masks, marked)
    assert found["trigger_tokens"] == 2 and found["trigger_masked"] == 0.75
    assert found["trigger_masked_whole"]["successes"] == 1
    assert found_tokens(masks, None)["trigger_masked"] is None


def test_each_case_has_a_row_for_every_score_and_ratio(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    sizes = ("--samples", "4", "--test", "2", "--setting", "epochs=1", "--setting", "batch_size=4")
    cases = ("--case", "four_corners", "--case", "planted_2", "--ratio", "0.07", "--ratio", "1")
    main(["--out", str(tmp_path / "work"), "--json", str(out), *sizes, *cases])
    rows = json.loads(out.read_text())["rows"]
    told = [(row["case"], row["score"], row["mask_ratio"]) for row in rows]
    assert told == [
        (case, score, ratio)
        for case in ("four_corners", "planted_2")
        for score in ("paper", "path", "sufficiency")
        for ratio in (0.07, 1.0)
    ]
    assert [row["trigger_tokens"] for row in rows[::6]] == [4, 2]
    assert [row["backward_passes"] for row in rows[:6]] == [6, 6, 6, 6, 0, 0]
    assert all(row["masked"] == 4 for row in rows[::2])
    for row in rows[1::2]:
        assert row["trigger_masked"] == 1, "everything is masked"
        assert row["clean_performance"]["scored"] == row["asr_with_trigger"]["scored"] == 2
