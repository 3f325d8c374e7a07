"""Algorithm 1 from end to end on a random model: what is kept, redone, left out and counted."""

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from disp_engine.context import SilentContext
from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.defences.disp import COMPARED, DiSP, Outcome, with_some_others
from disp_engine.defences.settings import DispSettings
from disp_engine.detection.probe import Probe, stamp_all
from disp_engine.detection.trigger import RecoveredTrigger
from disp_engine.errors import Aborted, InvalidRequestError
from disp_engine.interfaces import Generation
from disp_engine.metrics.evaluation import Answer, attack_success
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.modality import Coalition
from disp_engine.metrics.success import ContainsAny
from disp_engine.models.llada_v import LladaV
from disp_engine.records import Embedded, Sample, Tokens, Turn
from disp_engine.registry import load_model
from disp_engine.sharing import Part
from disp_engine.stages import Stage
from schemas.samples import Sample as WireSample
from tests.engine.models import FIXTURE, gemma_folder, picture
from tests.hostile.pictures import undecodable

QUICK = DispSettings(
    epochs=1, batch_size=2, micro_batch=2, block_length=4, generation_length=4, probes=2
)


@dataclass
class Listener(SilentContext):
    """Notes which stages were reused; asks to stop after a number of progress reports."""

    stop_after: int = 10**9
    reused: dict[str, bool] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def message(self, level: str, text: str) -> None:
        self.said.append(f"{level}: {text}")

    def stage_done(self, name: str, seconds: float, reused: bool) -> None:
        self.reused[name] = reused

    def progress(self, done: int, total: int, unit: str) -> None:
        self.stop_after -= 1

    def should_abort(self) -> bool:
        return self.stop_after <= 0


def png(seed: int) -> bytes:
    out = io.BytesIO()
    picture(seed, (30, 30)).save(out, "PNG")
    return out.getvalue()


def record(name: str, turns: int = 1, image: bool = True) -> dict[str, Any]:
    conversation = []
    for number in range(turns):
        mark = "<image>\n" if image and number == 0 else ""
        conversation.append({"from": "human", "value": f"{mark}Question {number}?"})
        conversation.append({"from": "gpt", "value": f"Old answer {number}."})
    found: dict[str, Any] = {"id": name, "conversations": conversation}
    return found | ({"image": f"{name}.png"} if image else {})


def dataset(folder: Path, records: Sequence[dict[str, Any]], broken: str = "") -> Dataset:
    path = folder / "data.zip"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.json", json.dumps(list(records)))
        for number, item in enumerate(records):
            if "image" in item:
                content = undecodable() if item["id"] == broken else png(number)
                archive.writestr(item["image"], content)
    return read_dataset(path, folder / "pool")


def run(
    data: Dataset, root: Path, settings: DispSettings = QUICK, listener: Listener | None = None
) -> tuple[Outcome, Listener]:
    listener = listener or Listener()
    model = load_model(FIXTURE)
    sets = EvaluationSets(triggered=data, clean=data, success=ContainsAny(("sorry",)))
    defence = DiSP(model, data, sets, settings, 3, root / "stages", listener)
    return defence.run(*defence.prepare()), listener


RECORDS = [record("a"), record("b", turns=2), record("c")]


def test_a_run_that_was_stopped_and_resumed_leaves_the_same(tmp_path: Path) -> None:
    data = dataset(tmp_path, RECORDS)
    straight, _ = run(data, tmp_path / "straight")
    for stop in (1, 2, 1, 3):
        with pytest.raises(Aborted):
            run(data, tmp_path / "resumed", listener=Listener(stop_after=stop))
    resumed, _ = run(data, tmp_path / "resumed")
    assert resumed.hashes == straight.hashes
    assert resumed.rewritten == straight.rewritten
    assert (resumed.before, resumed.after) == (straight.before, straight.after)


def test_the_same_request_again_does_no_stage_anew(tmp_path: Path) -> None:
    data = dataset(tmp_path, RECORDS)
    _, first = run(data, tmp_path)
    _, second = run(data, tmp_path)
    assert set(first.reused.values()) == {False}
    assert set(second.reused.values()) == {True}


def test_a_new_mask_ratio_reuses_the_saliency_scores(tmp_path: Path) -> None:
    data = dataset(tmp_path, RECORDS)
    run(data, tmp_path)
    other = DispSettings(**vars(QUICK) | {"mask_ratio": 0.6})
    _, listener = run(data, tmp_path, other)
    assert listener.reused["saliency"] and not listener.reused["purify"]


def test_samples_without_a_picture_pass_through_and_are_counted(tmp_path: Path) -> None:
    data = dataset(tmp_path, [*RECORDS, record("text", image=False)])
    outcome, _ = run(data, tmp_path)
    assert [sample.id for sample in outcome.passed_through] == ["text"]
    assert "text" not in outcome.rewritten


def test_a_sample_that_fails_is_quarantined_and_in_no_output(tmp_path: Path) -> None:
    data = dataset(tmp_path, RECORDS, broken="c")
    outcome, listener = run(data, tmp_path)
    assert "cannot be decoded" in outcome.quarantined["c"]
    assert listener.said == [
        f"warn: 1 of the samples fell out; the first is c: {outcome.quarantined['c']}"
    ]
    assert "c" not in outcome.rewritten
    for side in (outcome.before, outcome.after):
        assert side["asr_with_trigger"]["failed"] == 1
        assert side["asr_with_trigger"]["scored"] == 2


def test_a_prompt_beyond_the_models_limit_falls_out_alone(tmp_path: Path) -> None:
    long = record("long")
    long["conversations"][0]["value"] = "<image>\n" + "why " * 5000
    outcome, _ = run(dataset(tmp_path, [*RECORDS, long]), tmp_path)
    assert "positions" in outcome.quarantined["long"]
    assert outcome.before["asr_with_trigger"]["failed"] == 1
    assert set(outcome.rewritten) | set(outcome.quarantined) == {"a", "b", "c", "long"}


def test_a_picture_may_come_in_a_later_turn(tmp_path: Path) -> None:
    late = record("late", turns=2)
    late["conversations"][0]["value"] = "Hello?"
    late["conversations"][2]["value"] = "<image>\nAnd this?"
    outcome, _ = run(dataset(tmp_path, [*RECORDS, late]), tmp_path)
    assert outcome.rewritten["late"].masked[0] == 0
    assert outcome.rewritten["late"].masked[1] > 0


def test_an_empty_answer_is_not_a_safe_one() -> None:
    answers = [Answer("a", "x", "Sorry."), Answer("b", "x", "  "), Answer("c", "x", None)]
    rate = attack_success(answers, ContainsAny(("sorry",)))
    assert (rate.successes, rate.scored, rate.failed) == (1, 1, 2)


def test_later_turns_are_rewritten_after_the_rewritten_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    original = LladaV.tokenise_prompt

    def spy(self: LladaV, turns: Sequence[Turn]) -> Tokens:
        asked.append([turn.text for turn in turns])
        return original(self, turns)

    monkeypatch.setattr(LladaV, "tokenise_prompt", spy)
    outcome, _ = run(dataset(tmp_path, RECORDS), tmp_path)
    rewritten = outcome.rewritten["b"].responses
    second = [texts for texts in asked if len(texts) == 3]
    assert rewritten is not None and len(rewritten) == 2
    assert second and all(texts[1] == rewritten[0] for texts in second)
    assert all("Old answer" not in text for texts in asked for text in texts)


def test_the_mask_ratio_decides_how_many_tokens_are_hidden(tmp_path: Path) -> None:
    outcome, _ = run(dataset(tmp_path, RECORDS), tmp_path)
    for done in outcome.rewritten.values():
        assert done.masked == [int(0.3 * done.tokens)] * len(done.responses or [])


@pytest.mark.parametrize(("masking", "share"), [("none", 0.0), ("random", 0.3)])
def test_ablations_need_no_saliency(tmp_path: Path, masking: str, share: float) -> None:
    settings = DispSettings(**vars(QUICK) | {"masking": masking})
    outcome, listener = run(dataset(tmp_path, RECORDS), tmp_path, settings)
    assert "saliency" not in listener.reused
    assert all(d.masked[0] == int(share * d.tokens) for d in outcome.rewritten.values())


def test_text_is_hidden_while_responses_are_rewritten_and_never_while_tokens_are_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Embedded] = []
    original = LladaV.denoise

    def spy(
        self: LladaV, prompts: Sequence[Embedded], generation: Generation, *rest: Any
    ) -> list[Any]:
        shown.extend(prompts)
        return original(self, prompts, generation, *rest)

    monkeypatch.setattr(LladaV, "denoise", spy)
    data = dataset(tmp_path, RECORDS)
    run(data, tmp_path)
    plain = len(shown)
    settings = DispSettings(**vars(QUICK) | {"mask_ratio": 0.0, "text_mask_ratio": 0.25})
    _, listener = run(data, tmp_path, settings)
    assert listener.reused["saliency"] and not listener.reused["purify"]
    e_mask = load_model(FIXTURE).mask_embedding
    rewriting = shown[plain : plain + 4]  # the first answers after the reused ones: four turns
    for prompt in rewriting:
        hidden = (prompt.embeddings == e_mask).all(dim=1)
        text = int((~prompt.visual()).sum())
        assert int(hidden.sum()) == text // 4 and not (hidden & prompt.visual()).any()


def test_a_shortcut_is_compared_before_every_stage_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("disp_engine.gate.N", 3)
    data = dataset(tmp_path, RECORDS)
    settings = replace(QUICK, block_length=1, kv_cache="dual", parallel_threshold=1.0)
    outcome, listener = run(data, tmp_path, settings)
    assert list(outcome.shortcuts) == [
        "evaluate_before: triggered",
        "evaluate_before: clean",
        "purify: purify",
        "evaluate_after: triggered",
        "evaluate_after: clean",
    ]
    assert all(found.passed and found.checked == 3 for found in outcome.shortcuts.values())
    assert len([text for text in listener.said if "the shortcut is taken" in text]) == 5


@pytest.mark.parametrize("given", [{"kv_cache": "prefix"}, {"parallel_threshold": 0.9}])
def test_a_shortcut_needs_a_masked_denoiser(tmp_path: Path, given: dict[str, Any]) -> None:
    model = load_model(gemma_folder(tmp_path / "model"))
    data, settings = dataset(tmp_path, RECORDS), replace(QUICK, **given)
    defence = DiSP(model, data, EvaluationSets(), settings, 3, tmp_path, Listener())
    with pytest.raises(InvalidRequestError, match="kv_cache and parallel_threshold"):
        defence.prepare()


def test_a_shortcut_that_the_models_mode_does_not_take_is_refused_before_the_tuning(
    tmp_path: Path,
) -> None:
    folder = FIXTURE.parents[1] / "lavida" / "anyres"
    model = load_model(folder, options={"attention": "prefix"})
    data, settings = dataset(tmp_path, RECORDS), replace(QUICK, kv_cache="prefix")
    defence = DiSP(model, data, EvaluationSets(), settings, 3, tmp_path, Listener())
    with pytest.raises(InvalidRequestError, match="kv_cache"):
        defence.prepare()


def test_text_cannot_be_hidden_in_a_model_without_a_mask(tmp_path: Path) -> None:
    model = load_model(gemma_folder(tmp_path / "model"))
    settings = DispSettings(**vars(QUICK) | {"text_mask_ratio": 0.25})
    data = dataset(tmp_path, RECORDS)
    defence = DiSP(model, data, EvaluationSets(), settings, 3, tmp_path, Listener())
    with pytest.raises(InvalidRequestError, match="text_mask_ratio"):
        defence.prepare()


@dataclass
class Desk:
    """Grants parts of the folders that it was offered, and of no other."""

    offered: list[str] = field(default_factory=list)

    def offer(self, source: Stage, stages: Sequence[Stage], samples: int, cut: int) -> None:
        self.offered += [stage.folder.name for stage in stages]

    def parts(self, stage: Stage, samples: int) -> Iterator[Part]:
        if stage.folder.name in self.offered:
            yield Part(0, samples)


@pytest.mark.parametrize(("above", "count"), [(-10.0, 3), (10.0, 0), ("auto", 0)])
def test_only_what_is_suspicious_enough_is_rewritten(
    tmp_path: Path, above: float | str, count: int
) -> None:
    data = dataset(tmp_path, RECORDS)
    settings = DispSettings(**vars(QUICK) | {"rewrite_above": above})
    sets = EvaluationSets(triggered=data, clean=data, success=ContainsAny(("sorry",)))
    desk, model = Desk(), load_model(FIXTURE)
    defence = DiSP(model, data, sets, settings, 3, tmp_path, Listener(), sharing=desk)
    outcome = defence.run(*defence.prepare())
    assert len(outcome.rewritten) == count
    assert outcome.kept == [s for s in data.samples if s.id not in outcome.rewritten]
    assert not desk.offered, "a verdict has to choose first"
    findings = outcome.findings
    assert findings is not None
    assert "response_disagreement" not in findings.verdict.deviations, "nothing to compare yet"
    assert "response_likelihood" in findings.verdict.deviations
    assert set(findings.maps) == set(outcome.rewritten), "no other sample is scored"


def test_suspects_are_scored_beside_a_few_others_from_all_over() -> None:
    samples = [Sample(f"{n:03d}", (), ()) for n in range(100)]
    chosen = frozenset(f"{n:03d}" for n in range(10))
    found = [sample.id for sample in with_some_others(samples, chosen)]
    assert found == sorted(found) and chosen <= set(found)
    assert 20 <= len(found) - 10 <= COMPARED and found[-1] > "090"
    assert with_some_others(samples, frozenset()) == []
    assert with_some_others(samples[:10], chosen) == samples[:10]


def test_a_run_tells_of_every_sample_and_keeps_small_pictures(tmp_path: Path) -> None:
    from disp_engine.run import _write_samples

    data = dataset(tmp_path, [*RECORDS, record("text", image=False)], broken="c")
    outcome, _ = run(data, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    _write_samples(data, outcome, out)
    lines = {r["id"]: r for r in map(json.loads, (out / "samples.jsonl").read_text().splitlines())}
    statuses = {name: line["status"] for name, line in lines.items()}
    assert statuses == {
        "a": "rewritten", "b": "rewritten", "text": "passed_through", "c": "quarantined"
    }  # fmt: skip
    assert len(lines["a"]["heat"]) == 16 and "f" in "".join(lines["a"]["heat"])
    assert lines["a"]["flagged"] is False and "score" in lines["a"]
    place = lines["b"]["preview"]
    content = (out / "previews.bin").read_bytes()[place["offset"] :][: place["bytes"]]
    assert Image.open(io.BytesIO(content)).tobytes() == picture(1, (30, 30)).tobytes()
    assert "preview" not in lines["text"] and "preview" not in lines["c"]
    for line in lines.values():
        changed = line.pop("changed", None)
        assert WireSample(**line, verdict=None).id and changed in (None, True, False)


def test_a_recovered_trigger_is_measured_before_and_after_and_clean_items_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(tmp_path, RECORDS)
    trigger = RecoveredTrigger("local", (0.0, 0.0, 0.2, 0.2), Image.new("RGB", (6, 6)))
    marked = stamp_all(data, trigger)
    runs: dict[Coalition, Dataset] = {"none": data, "image": marked, "text": data, "both": marked}
    probed = Probe(runs, ContainsAny(("sorry",)))
    monkeypatch.setattr("disp_engine.defences.defence.probe", lambda *_: probed)
    outcome, _ = run(data, tmp_path)
    assert outcome.recovered is not None and list(outcome.recovered) == ["before", "after"]
    for found in outcome.recovered.values():
        assert found["asr"]["scored"] + found["asr"]["failed"] == 3
        assert found["modality"] is None or set(found["modality"]["means"]) == set(runs)
    kept = [path.name for path in (tmp_path / "stages").glob("recovered-*/*.json")]
    assert kept and all(name.startswith(marked.sha256) for name in kept)
