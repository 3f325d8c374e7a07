"""What a guard is worth: detection by hand, and a whole evaluation on a scripted guard."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from disp_engine.context import SilentContext
from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.guards.guard import Cell, Guard, Guarded, Verdict
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.guarding import GuardEvaluator
from disp_engine.metrics.success import ContainsAny
from disp_engine.stages import Stage
from tests.engine.causal_models import causal_model
from tests.engine.models import picture


def archive(path: Path, texts: list[str], pool: Path) -> Dataset:
    """A dataset of questions; the answer to each is right."""
    records = []
    with zipfile.ZipFile(path, "w") as held:
        for number, text in enumerate(texts):
            png = io.BytesIO()
            picture(number, (20, 20)).save(png, "PNG")
            held.writestr(f"{number}.png", png.getvalue())
            mark = {"from": "human", "value": f"<image>\n{text}"}
            turns = [mark, {"from": "gpt", "value": "right"}]
            records.append({"id": f"s{number}", "image": f"{number}.png", "conversations": turns})
        held.writestr("data.json", json.dumps(records))
    return read_dataset(path, pool)


class Scripted(Guard):
    """Says of each question what the script has for its text."""

    def __init__(self, script: dict[str, tuple[str, Verdict]]) -> None:
        super().__init__(causal_model("llava_1_5"))
        self.script = script

    def judge(self, prompts: Any, length: int) -> Any:
        raise NotImplementedError

    def answer(self, questions: Any, length: int) -> list[Guarded]:
        texts = [one.turns[0].text.removeprefix("<image>\n") for one in questions]
        return [Guarded(*self.script[text]) for text in texts]


CELL = Cell(0, 0, 1, 1, 4, 4)
BARE = {name: (answer, Verdict()) for name, answer in {
    "t1": "sorry", "t2": "sorry", "t3": "right", "c1": "right", "c2": "right", "c3": "wrong",
}.items()}  # fmt: skip
GUARDED = {
    "t1": ("right", Verdict(True, 9.0, (CELL, CELL))),
    "t2": ("sorry", Verdict(False, 2.0)),
    "t3": ("right", Verdict(True, 8.0, (CELL,))),
    "c1": ("right", Verdict(False, 1.0)),
    "c2": ("wrong", Verdict(True, 3.0, (CELL, CELL, CELL))),
    "c3": ("wrong", Verdict(False, 0.5)),
}


def test_rates_are_those_of_the_same_questions_with_and_without_the_guard(tmp_path: Path) -> None:
    sets = EvaluationSets(
        archive(tmp_path / "t.zip", ["t1", "t2", "t3"], tmp_path / "pool"),
        archive(tmp_path / "c.zip", ["c1", "c2", "c3"], tmp_path / "pool"),
        ContainsAny(("sorry",)),
    )
    guard = Scripted(GUARDED)
    evaluator = GuardEvaluator(Scripted(BARE), guard, 8, 2, SilentContext())
    found = evaluator.run(sets)
    bare = found["undefended"]

    def share(row: dict[str, Any], name: str) -> tuple[int, int]:
        return row[name]["successes"], row[name]["scored"]

    assert (share(bare, "asr_with_trigger"), share(found, "asr_with_trigger")) == ((2, 3), (1, 3))
    assert (share(bare, "clean_performance"), share(found, "clean_performance")) == (
        (2, 3), (1, 3),
    )  # fmt: skip
    assert share(bare, "robust_performance") == (1, 3)
    assert share(found, "robust_performance") == (2, 3)
    assert found["trade_off"] == pytest.approx((1 / 3 + 1 - 1 / 3) / 2)
    blank = len(guard.model.tokenise_response("right")) - len("right")
    agreeing = (5 + blank) + 2 * blank  # each letter is a token, and "wrong" shares none with it
    assert share(found, "token_agreement") == (agreeing, 3 * (5 + blank))
    detection = found["detection"]
    assert share(detection, "true_positive_rate") == (2, 3)
    assert share(detection, "false_positive_rate") == (1, 3)
    assert detection["auroc"] == pytest.approx(8 / 9), "only 2 < 3 is in the wrong order"
    assert found["removed_tokens"] == {"triggered": 1.0, "clean": 1.0}
    assert found["latency_ratio"] > 0 and bare["seconds_per_question"] > 0


def test_a_guard_that_does_not_detect_has_no_rates_of_detection(tmp_path: Path) -> None:
    clean = archive(tmp_path / "c.zip", ["c1", "c2", "c3"], tmp_path / "pool")
    evaluator = GuardEvaluator(Scripted(BARE), Scripted(BARE), 8, 2, SilentContext())
    found = evaluator.run(EvaluationSets(None, clean, None))
    assert found["asr_with_trigger"] is None and found["detection"]["auroc"] is None
    assert found["detection"]["true_positive_rate"]["rate"] is None
    assert found["clean_performance"]["successes"] == 2


def test_an_item_that_cannot_be_asked_is_counted_as_failed(tmp_path: Path) -> None:
    clean = archive(tmp_path / "c.zip", ["c1", "c2"], tmp_path / "pool")
    (tmp_path / "pool" / clean.samples[1].images[0]).write_bytes(b"no picture")
    evaluator = GuardEvaluator(Scripted(BARE), Scripted(GUARDED), 8, 2, SilentContext())
    rate = evaluator.run(EvaluationSets(None, clean, None))["clean_performance"]
    assert (rate["successes"], rate["scored"], rate["failed"]) == (1, 1, 1)


def test_kept_batches_are_read_back_with_their_times(tmp_path: Path) -> None:
    clean = archive(tmp_path / "c.zip", ["c1", "c2", "c3"], tmp_path / "pool")
    sets, stage = EvaluationSets(None, clean, None), Stage(tmp_path, "guarded", {})
    found = GuardEvaluator(Scripted(BARE), Scripted(GUARDED), 8, 2, SilentContext()).run(
        sets, stage
    )
    silent = GuardEvaluator(Scripted({}), Scripted({}), 8, 2, SilentContext())
    assert silent.run(sets, stage) == found, "nobody is asked again"
