"""The comparison of what may hide a visual token, on a checkpoint that has learnt nothing."""

import json
from pathlib import Path

from benchmarks.hiding import main
from tests.engine.models import gemma_folder


def test_each_way_of_hiding_has_a_row(tmp_path: Path) -> None:
    model = gemma_folder(tmp_path / "model")
    (model / "card.yaml").write_text("defaults: {block_length: 8, generation_length: 8}\n")
    sizes = ("--samples", "5", "--test", "2", "--epochs", "1")
    out = tmp_path / "rows.json"
    main(["--model", str(model), "--out", str(tmp_path / "out"), "--json", str(out), *sizes])
    rows = json.loads(out.read_text())
    assert [row["hiding"] for row in rows] == ["mean_embedding", "random_tokens", "unread"]
    for row in rows:
        assert row["captions"]["scored"] == 2 and row["clean_responses_changed"]["scored"] == 4
        assert row["before"] == rows[0]["before"]  # the same tuning, whatever hides
        attacked = row["after"]["asr_with_trigger"]
        assert attacked["scored"] + attacked["failed"] == 2
