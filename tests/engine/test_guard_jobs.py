"""Jobs on autoregressive models: guards that are measured, and data that are purified under one."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from disp_engine import registry
from disp_engine.context import SilentContext
from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.defences.calibration import divided
from disp_engine.defences.defence import Outcome
from disp_engine.defences.regeneration import Regenerated, Regenerator
from disp_engine.defences.rewriting import Rewritten
from disp_engine.defences.self_purification import heat
from disp_engine.errors import InvalidRequestError
from disp_engine.guards.guard import Cell, Guard, Guarded, Verdict
from disp_engine.interfaces import AutoregressiveModel
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.success import ContainsAny
from disp_engine.records import Turn
from disp_engine.run import run
from disp_engine.spec import RunSpec
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache, prepare
from disp_engine.training.projector import projector_sha256
from schemas.reports import Report
from tests.engine.causal_models import folder_of
from tests.engine.models import picture
from workers.publication import _check_output

FOLDER = "llava_1_5_siglip"
QUICK = {
    "epochs": 1, "batch_size": 4, "micro_batch": 3, "block_length": 4, "generation_length": 4,
}  # fmt: skip
COUNT = 6


def archive(path: Path, turns: int = 1) -> Path:
    records = []
    with zipfile.ZipFile(path, "w") as file:
        for i in range(COUNT):
            png = io.BytesIO()
            picture(i, (20, 20)).save(png, "PNG")
            file.writestr(f"{i}.png", png.getvalue())
            said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A."}]
            said += [{"from": "human", "value": "And?"}, {"from": "gpt", "value": "B."}] * (
                turns - 1
            )
            records.append({"id": f"s{i}", "image": f"{i}.png", "conversations": said})
        file.writestr("data.json", json.dumps(records))
    return path


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("data") / "data.zip")


@pytest.fixture(scope="module")
def data(zipped: Path) -> Dataset:
    return read_dataset(zipped, zipped.parent / "pool")


def model() -> AutoregressiveModel:
    return registry.load_autoregressive(folder_of(FOLDER))


def defend(name: str, data: Dataset, root: Path, **settings: Any) -> tuple[Outcome, Any]:
    kind, loaded = registry.defence(name), model()
    resolved = kind.settings_type.resolve(QUICK | settings)
    sets = EvaluationSets(data, data, ContainsAny(("sorry",)))
    defence = kind(loaded, data, sets, resolved, 3, root, SilentContext())
    return defence.run(*defence.prepare()), loaded


def test_a_clean_set_is_divided_once_and_whole(data: Dataset) -> None:
    learnt, rest = divided(data, 0.5, 7)
    assert len(learnt.samples) == len(rest.samples) == 3
    assert {s.id for s in (*learnt.samples, *rest.samples)} == {s.id for s in data.samples}
    assert [s.id for s in divided(data, 0.5, 7)[0].samples] == [s.id for s in learnt.samples]
    with pytest.raises(InvalidRequestError, match=r"evaluation\.clean_file"):
        divided(None, 0.5, 7)


def test_an_item_that_cannot_be_asked_teaches_nothing(data: Dataset, tmp_path: Path) -> None:
    turns = (Turn("human", "What?"), Turn("gpt", "A."))
    blind = replace(data.samples[0], images=(), turns=turns)
    spoilt = replace(data, samples=[blind, *data.samples[1:]])
    outcome, _ = defend("cleansight", spoilt, tmp_path, calibration_share=0.99)
    assert outcome.guard is not None and outcome.guard.calibration is not None
    assert json.loads(outcome.guard.calibration.read_text())["samples"] == COUNT - 1


def test_cleansight_is_calibrated_for_the_projector_that_the_job_leaves(
    data: Dataset, tmp_path: Path
) -> None:
    outcome, loaded = defend("cleansight", data, tmp_path)
    guard = outcome.guard
    assert guard is not None and guard.calibration is not None
    told = json.loads(guard.calibration.read_text())
    assert told["projector"] == projector_sha256(loaded.projector)
    assert told["samples"] == 3, "half of the clean set"
    assert outcome.before["clean_performance"]["scored"] == 3, "measured on the other half"
    assert outcome.after["clean_performance"]["scored"] == 3
    assert guard.measured["detection"]["true_positive_rate"]["scored"] == COUNT
    assert 0 <= guard.measured["detection"]["auroc"] <= 1
    again = registry.guard("cleansight", loaded, {"calibration": str(guard.calibration)})
    assert isinstance(again, Guard)


def test_a_guard_leaves_data_and_projector_as_they_were_tuned(
    data: Dataset, tmp_path: Path
) -> None:
    outcome, _ = defend("purmm", data, tmp_path)
    assert outcome.guard is not None and outcome.guard.calibration is None
    assert outcome.guard.measured["removed_tokens"]["triggered"] > 0
    assert outcome.hashes["purified_projector"] == outcome.hashes["compromised_projector"]
    assert len(outcome.kept) == COUNT and not outcome.rewritten
    with pytest.raises(InvalidRequestError, match="starts from"):
        registry.defence("purmm").settings_type.resolve({"start": "base"})
    with pytest.raises(InvalidRequestError, match="clustering is"):
        registry.defence("purmm").settings_type.resolve({"clustering": "spectral"})


def test_a_half_precision_projector_is_measured_as_its_file_holds_it(
    data: Dataset, tmp_path: Path
) -> None:
    kind = registry.defence("purmm")
    loaded = registry.load_autoregressive(folder_of(FOLDER), dtype=torch.bfloat16)
    settings = kind.settings_type.resolve(QUICK)
    defence = kind(loaded, data, EvaluationSets(data), settings, 0, tmp_path, SilentContext())
    defence.compromise(*defence.prepare())
    for weight in loaded.projector.parameters():
        assert torch.equal(weight, weight.to(torch.bfloat16).float())


@pytest.mark.parametrize("guard", ["purmm", "cleansight"])
def test_every_response_is_given_anew_and_judged(data: Dataset, tmp_path: Path, guard: str) -> None:
    outcome, _ = defend("self_purification", data, tmp_path, guard=guard)
    assert outcome.findings is not None
    assert {"response_disagreement", "response_likelihood", "shared_look"} == set(
        outcome.findings.to_json()["detectors"]
    )
    assert set(outcome.rewritten) | set(outcome.quarantined) == {s.id for s in data.samples}
    assert all(done.tokens == 16 for done in outcome.rewritten.values())
    if guard == "purmm":
        assert any(done.masked[0] > 0 for done in outcome.rewritten.values())


def test_data_that_are_not_called_poisoned_stay_where_only_flagged_ones_are_replaced(
    data: Dataset, tmp_path: Path
) -> None:
    outcome, _ = defend("self_purification", data, tmp_path, replace_only_flagged=True)
    assert len(outcome.kept) == COUNT, "six samples are too few for a verdict"


class Echo(Guard):
    """Answers with the number of words that it was asked, and hides the first token."""

    def judge(self, prompts: Any, length: int) -> Any:
        raise NotImplementedError

    def answer_prompts(self, prompts: Any, length: int) -> list[Guarded]:
        verdict = Verdict(removed=(Cell(0, 0, 0, 0, 4, 4),))
        return [Guarded(f"{len(prompt.embeddings)}", verdict) for prompt in prompts]


def test_later_turns_see_the_new_answers_and_finished_batches_are_kept(tmp_path: Path) -> None:
    data = read_dataset(archive(tmp_path / "data.zip", turns=2), tmp_path / "pool")
    loaded = model()
    cache = FeatureCache(loaded, tmp_path, SilentContext())
    samples = prepare(data, loaded, cache).usable
    stage = Stage(tmp_path, "regenerate", {})
    found = Regenerator(Echo(loaded), cache, 4, 4, SilentContext()).run(samples, stage)
    done = found["s0"].rewritten
    assert done.responses is not None
    first, second = map(int, done.responses)
    answered = loaded.tokenise_prompt(
        [samples[0].turns[0], Turn("gpt", str(first)), samples[0].turns[2]]
    )
    assert second == len(answered.ids) - 1 + 16, "the picture's mark becomes sixteen tokens"
    assert done.masked == [1, 1] and found["s0"].removed == (Cell(0, 0, 0, 0, 4, 4),)
    broken = Regenerator(Guardless(loaded), cache, 4, 4, SilentContext())
    assert broken.run(samples, stage) == found, "what is kept is not asked again"


class Guardless(Echo):
    def answer_prompts(self, prompts: Any, length: int) -> list[Guarded]:
        raise AssertionError("nothing is left to ask")


def test_a_map_is_where_tokens_were_kept_from_the_model() -> None:
    """One of 2 x 2 cells: a quarter of the 16 x 16 map holds everything."""
    found = heat((Cell(0, 0, 1, 0, 2, 2),))
    assert found[8:, :8].sum() == pytest.approx(1.0)
    assert heat(()).sum() == 0
    kept = Regenerated(Rewritten("s", None, [], 0, "why"))
    assert kept.first is None


@pytest.mark.parametrize("name", ["purmm", "cleansight", "self_purification"])
def test_a_run_leaves_a_report_that_the_service_takes(
    name: str, zipped: Path, tmp_path: Path
) -> None:
    spec = RunSpec(
        folder_of(FOLDER), "tiny", zipped, tmp_path / "work", tmp_path / "out",
        triggered_file=zipped, clean_file=zipped,
        success={"type": "contains_any", "phrases": ["sorry"]},
        method={"type": name, "hyperparameters": QUICK}, threads=1,
    )  # fmt: skip
    run(spec, SilentContext())
    _check_output(tmp_path / "out", spec.stages)
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    page = (tmp_path / "out" / "report.html").read_text()
    if name == "self_purification":
        assert report.verdict is not None and report.guard is None
        assert "guarded" not in page
        return
    assert report.guard is not None and report.guard.name == name
    assert report.latency is not None and (report.latency.latency_ratio or 0) > 0
    assert "changes neither data nor model" in page
    assert (tmp_path / "out" / "calibration.json").exists() == (name == "cleansight")


def test_rows_of_a_request_leave_out_what_suits_those_of_the_card(
    zipped: Path, tmp_path: Path
) -> None:
    """The service sends the registered card along; `rounds` are refused with these rows."""
    spec = RunSpec(
        folder_of(FOLDER), "tiny", zipped, tmp_path / "work", tmp_path / "out",
        triggered_file=zipped, defaults={"rows": "last", "contrast": 25.0, "rounds": 5}, threads=1,
        method={"type": "purmm", "hyperparameters": QUICK | {"rows": "answer"}},
    )  # fmt: skip
    run(spec, SilentContext())
    assert json.loads((tmp_path / "out" / "report.json").read_bytes())["guard"]["name"] == "purmm"
