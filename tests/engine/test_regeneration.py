"""Purification of data by guarded answers, on a random model and a few samples."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from disp_engine import registry
from disp_engine.context import SilentContext
from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.defences.settings import DefenceSettings
from disp_engine.errors import InvalidDatasetError, SampleError
from disp_engine.guards.guard import Question
from disp_engine.guards.purmm import PurMM
from disp_engine.models.autoregressive.chat import Prompter
from disp_engine.regeneration import Regenerated, Regeneration
from disp_engine.training.projector import projector_sha256
from tests.engine.causal_models import folder_of
from tests.engine.test_guarding import archive

SETTINGS = DefenceSettings.resolve({"epochs": 2, "retrain_epochs": 1, "batch_size": 2,
                                    "micro_batch": 2, "learning_rate": 1e-2})  # fmt: skip
LENGTH = 6


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return archive(tmp_path / "data.zip", ["What?", "Who?", "Where?"], tmp_path / "pool")


def regenerated(
    data: Dataset, root: Path, out: Path, settings: DefenceSettings = SETTINGS, **changes: Any
) -> tuple[Regenerated, Any]:
    model = registry.load_autoregressive(folder_of("llava_1_5"))
    given = {"guard": "purmm", "options": {}} | changes
    run = Regeneration(
        model, data, given["guard"], given["options"], settings, LENGTH, 0, root, SilentContext()
    )
    return run.run(out), model


def test_every_response_is_replaced_by_a_guarded_one(data: Dataset, tmp_path: Path) -> None:
    done, _ = regenerated(data, tmp_path / "work", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / "purified_dataset.zip") as held:
        records = json.loads(held.read("data.json"))
    assert [record["id"] for record in records] == list(done.rewritten)
    for record in records:
        kept = done.rewritten[record["id"]]
        assert [record["conversations"][1]["value"]] == kept.responses != ["right"]
        assert kept.masked[0] > 0


def test_another_guard_writes_other_responses(data: Dataset, tmp_path: Path) -> None:
    done, _ = regenerated(data, tmp_path / "work", tmp_path / "out")
    bare, _ = regenerated(data, tmp_path / "work", tmp_path / "bare", guard="undefended")
    said, other = ([one.responses for one in found.rewritten.values()] for found in (done, bare))
    assert said != other


def test_the_projector_is_tuned_twice_and_written(data: Dataset, tmp_path: Path) -> None:
    _, model = regenerated(data, tmp_path / "work", tmp_path / "out")
    base: Any = registry.load_autoregressive(folder_of("llava_1_5"))
    assert projector_sha256(model.projector) != projector_sha256(base.projector)
    written = load_file(tmp_path / "out" / "mm_projector.safetensors")
    for name, value in model.projector.state_dict().items():
        assert (written[model.projector_prefix + name] == value).all()
    assert len(list((tmp_path / "work").glob("guard-tune-*"))) == 2


def test_kept_stages_give_the_same_again(data: Dataset, tmp_path: Path) -> None:
    first, one = regenerated(data, tmp_path / "work", tmp_path / "a")
    again, two = regenerated(data, tmp_path / "work", tmp_path / "b")
    assert first == again
    assert projector_sha256(one.projector) == projector_sha256(two.projector)
    anew, three = regenerated(data, tmp_path / "other", tmp_path / "c")
    assert anew == first and projector_sha256(three.projector) == projector_sha256(one.projector)


def test_a_sample_that_cannot_be_rewritten_is_quarantined_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(tmp_path / "data.zip", ["What?", "xxx?", "Where?"], tmp_path / "pool")
    data = read_dataset(tmp_path / "data.zip", tmp_path / "pool")
    answer = PurMM.answer

    def refuses(self: PurMM, questions: list[Question], length: int) -> Any:
        if any("xxx" in one.turns[0].text for one in questions):
            raise SampleError("too long to be asked")
        return answer(self, questions, length)

    monkeypatch.setattr(PurMM, "answer", refuses)
    done, _ = regenerated(data, tmp_path / "work", tmp_path / "out")
    assert done.quarantined == {"s1": "too long to be asked"}
    assert sorted(done.rewritten) == ["s0", "s2"]


def test_where_nothing_is_left_the_run_says_so(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prompter, "decode", lambda self, ids: "")
    with pytest.raises(InvalidDatasetError, match="nothing is left"):
        regenerated(data, tmp_path / "work", tmp_path / "out")
