"""The comparison of what may hide a visual token, on a checkpoint that has learnt nothing."""

import json
from pathlib import Path

from benchmarks.hiding import main
from disp_engine.builtin.recipe.__main__ import Progress
from disp_engine.builtin.recipe.gemma import GemmaRecipe, write
from tests.engine.test_gemma_recipe import tower


def test_each_way_of_hiding_has_a_row(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    progress = Progress(tmp_path / "gemma.safetensors")
    recipe = GemmaRecipe(steps=1, batch=2, scenes=4)
    write(model, tower(), recipe, progress.save, progress.restore)
    (model / "card.yaml").write_text("defaults: {learning_rate: 0.001}\n")
    sizes = ("--samples", "5", "--test", "2", "--epochs", "1")
    out = tmp_path / "rows.json"
    main(["--model", str(model), "--out", str(tmp_path / "out"), "--json", str(out), *sizes])
    rows = json.loads(out.read_text())
    assert [row["hiding"] for row in rows] == ["mean_embedding", "random_tokens", "unread"]
    for row in rows:
        assert row["captions"]["scored"] == 2 and row["clean_responses_changed"]["scored"] == 4
        assert row["before"] == rows[0]["before"]  # the same tuning, whatever hides
        assert (
            row["after"]["asr_with_trigger"]["scored"] + row["after"]["asr_with_trigger"]["failed"]
            == 2
        )
