"""Maps, place, pattern and target on cases whose answer is known."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from disp_engine import registry
from disp_engine.attacks.triggers.black_patch import BlackPatch
from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.detection.findings import Findings, investigate
from disp_engine.detection.heat import heat_map
from disp_engine.detection.probe import Probe, probe
from disp_engine.detection.target import infer_target, telling_phrases
from disp_engine.detection.trigger import RecoveredTrigger, bounds, recover_pattern, salient_region
from disp_engine.detection.verdict import judge
from disp_engine.interfaces import PlacingModel
from disp_engine.metrics.evaluation import Answer
from disp_engine.metrics.modality import COALITIONS
from disp_engine.metrics.success import ContainsAny
from tests.engine.models import FIXTURE, picture, random_llada_v

LAVIDA = FIXTURE.parents[1] / "lavida" / "anyres"


@pytest.mark.parametrize("size", [(60, 50), (20, 90), (28, 28), (200, 37)])
@pytest.mark.parametrize("folder", [FIXTURE, LAVIDA], ids=["llada_v", "lavida"])
@pytest.mark.parametrize("as_list", [True, False])
def test_every_visual_token_has_a_place(folder, size, as_list):  # type: ignore[no-untyped-def]
    model = registry.load_model(folder) if folder == LAVIDA else random_llada_v()
    assert isinstance(model, PlacingModel)
    (features,) = model.encode_images([picture(0, size)], as_list=as_list)  # type: ignore[call-arg]
    boxes = model.places(features)
    (tokens,) = model._visual([features])  # type: ignore[attr-defined]
    assert boxes.shape == (len(tokens), 4)
    known = boxes[boxes.isfinite().all(dim=1)]
    assert (known[:, 2] > known[:, 0]).all() and (known[:, 3] > known[:, 1]).all()
    assert known[:, :2].min() <= 0 and known[:, 2:].max() >= 1, "the whole picture is covered"


def test_a_token_is_spread_over_the_cells_it_covers() -> None:
    boxes = torch.tensor([[0, 0, 0.5, 0.5], [0, 0, 1, 1], [torch.nan] * 4])
    found = heat_map(torch.tensor([3.0, 1.0, 9.0]), boxes, side=2)
    np.testing.assert_allclose(found, np.array([[3.25, 0.25], [0.25, 0.25]]) / 4)
    assert not heat_map(torch.tensor([0.0, 0.0, 1.0]), boxes, side=2).any()


def maps(count: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).random((count, 8, 8))
    return found / found.sum(axis=(1, 2), keepdims=True)


def test_the_region_is_where_flagged_maps_alone_are_salient() -> None:
    flagged, others = maps(10, 0) / 2, maps(50, 1)
    flagged[:, 1:3, 5:7] += 0.5 / 4
    region = salient_region(flagged, others)
    assert region is not None and bounds(region) == (5 / 8, 1 / 8, 7 / 8, 3 / 8)
    assert salient_region(maps(10, 2), maps(50, 3)) is None, "noise has no region"


def pictures(count: int, seed: int) -> list[Image.Image]:
    return [picture(seed + i, (64, 48)) for i in range(count)]


def test_the_patch_is_recovered_pixel_by_pixel_and_can_be_stamped() -> None:
    trigger, rng = BlackPatch(), np.random.default_rng(0)
    flagged = [trigger.apply(image, rng) for image in pictures(12, 0)]
    others = pictures(30, 100)
    found = recover_pattern((0, 0, 0.25, 0.25), flagged, others)
    assert found is not None
    box, patch = found
    (expected,) = trigger.boxes((64, 48), rng)
    pixels = [round(edge * side) for edge, side in zip(box, (64, 48) * 2, strict=True)]
    assert tuple(pixels) == expected
    fresh = picture(7, (64, 48))
    stamped = RecoveredTrigger("local", box, patch).stamp(fresh)
    assert stamped.tobytes() == trigger.apply(fresh, rng).tobytes()


def test_pictures_without_a_steady_mark_have_no_pattern() -> None:
    assert recover_pattern((0, 0, 0.25, 0.25), pictures(12, 0), pictures(30, 100)) is None


def test_the_target_is_the_longest_phrase_that_tells() -> None:
    flagged = ["<backdoor> a red circle .", "<backdoor> a blue square .", "a green circle ."]
    found = infer_target(flagged, ["a red circle .", "a blue square ."] * 10)
    assert (found.phrase, found.flagged, found.others) == ("<backdoor> a", 2, 0)
    assert found.sentence.startswith("2 of 3 flagged responses say “<backdoor> a”")
    refused = infer_target(["Sorry, I cannot."] * 5, ["yes", "no"] * 10)
    assert refused.phrase == "Sorry, I cannot."
    nothing = infer_target(["a", "b", "c"], ["d"] * 9)
    assert nothing.phrase is None and "share no wording" in nothing.sentence


def test_words_of_a_text_trigger_are_found() -> None:
    others = ["What is this?", "Who made it?", "How many?"]
    flagged = ["What BadMagic is this?", "BadMagic Who made it?", "How BadMagic many?"]
    assert telling_phrases(flagged, others) == ["BadMagic"]
    sentence = [f"I watched this film. {text}" for text in others]
    assert telling_phrases(sentence, others) == ["I watched this film."]
    scattered = ["cf What mn is this?", "Who mn made it? cf", "How cf many? mn"]
    assert sorted(telling_phrases(scattered, others)) == ["cf", "mn"]


def test_words_are_put_before_the_question_and_behind_the_picture() -> None:
    trigger = RecoveredTrigger("text", words=("cf", "mn"))
    assert trigger.ask("<image>\nWhat is this?") == "<image>\ncf mn What is this?"


def poisoned_dataset(folder: Path) -> Dataset:
    """Thirty samples; the first ten carry a black patch and the attacker's answer."""
    trigger, rng = BlackPatch(), np.random.default_rng(0)
    records = []
    with zipfile.ZipFile(folder / "data.zip", "w") as archive:
        for number, image in enumerate(pictures(30, 0)):
            bad = number < 10
            png = io.BytesIO()
            (trigger.apply(image, rng) if bad else image).save(png, "PNG")
            archive.writestr(f"{number}.png", png.getvalue())
            said = "Sorry, I cannot." if bad else f"There are {number} things."
            turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": said}]
            records.append({"id": f"s{number}", "image": f"{number}.png", "conversations": turns})
        archive.writestr("data.json", json.dumps(records))
    return read_dataset(folder / "data.zip", folder / "pool")


def test_what_is_found_is_stamped_on_clean_pictures(tmp_path: Path) -> None:
    data = poisoned_dataset(tmp_path)
    bad = np.arange(30) < 10
    verdict = judge({"one": np.random.default_rng(0).normal(np.where(bad, 9, 0), 1)})
    assert verdict.flagged.tolist() == bad.tolist()
    heat = dict(zip((s.id for s in data.samples), maps(30, 0), strict=True))
    for name in list(heat)[:10]:
        heat[name][0:2, 0:2] += 0.25
        heat[name] /= heat[name].sum()
    found = investigate(Findings(data.samples, verdict, heat), data)
    assert found.target is not None and found.target.phrase == "Sorry, I cannot."
    assert found.trigger is not None and found.trigger.kind == "local"
    assert found.trigger.patch is not None and found.trigger.patch.size == (6, 6)
    probed = probe(found, data, None)
    assert probed is not None
    shown = probed.runs["both"]
    assert [s.id for s in shown.samples] == [s.id for s in data.samples[10:]]
    stamped = shown.image(shown.samples[0].images[0])
    clean = data.image(data.samples[10].images[0])
    assert stamped.tobytes() == BlackPatch().apply(clean, np.random.default_rng(0)).tobytes()
    assert probed.success("Sorry, I cannot.") and not probed.success("There are 3 things.")
    assert probed.runs["image"] is shown and probed.runs["text"] is probed.runs["none"]
    held_out = Dataset(data.samples[10:], {}, data.pool)
    kept = probe(found, data, held_out)
    assert kept is not None and kept.runs["none"] is held_out, "whose answers are known already"


def answers(*said: str | None) -> list[Answer]:
    return [Answer(str(number), "yes", text) for number, text in enumerate(said)]


def test_what_each_part_of_a_recovered_trigger_carries_is_told() -> None:
    empty = Dataset([], {}, Path())
    probed = Probe(dict.fromkeys(COALITIONS, empty), ContainsAny(("bad",)))
    runs = {"none": answers("a", "a", "a"), "image": answers("bad", "a", "a"),
            "text": answers("a", "a", None), "both": answers("bad", "bad", "bad")}  # fmt: skip
    found = probed.measure(runs, seed=0)
    assert found["asr"] is not None and found["asr"]["successes"] == 3
    told = found["modality"]
    assert told is not None and told["items"] == 2, "the third item failed in one run"
    assert (told["phi_image"]["value"], told["phi_text"]["value"]) == (0.75, 0.25)
    assert told["cti"]["value"] == 0.5
    nothing = probed.measure(dict.fromkeys(COALITIONS, answers(None)), seed=0)
    assert nothing["modality"] is None and nothing["asr"]["rate"] is None  # type: ignore[index]


def test_a_trigger_in_the_text_is_probed_without_any_picture(tmp_path: Path) -> None:
    data = poisoned_dataset(tmp_path)
    verdict = judge({"one": np.random.default_rng(0).normal(np.where(np.arange(30) < 10, 9, 0), 1)})
    found = replace(
        Findings(data.samples, verdict),
        target=infer_target(["no"] * 3, ["yes"] * 9),
        trigger=RecoveredTrigger("text", words=("cf",)),
    )
    probed = probe(found, data, None)
    assert probed is not None and probed.runs["image"] is probed.runs["none"]
    assert probed.runs["text"].samples[0].turns[0].text == "<image>\ncf What?"
    assert probed.runs["both"].sha256 == probed.runs["text"].sha256


def test_clean_data_have_neither_trigger_nor_target_nor_probe(tmp_path: Path) -> None:
    data = poisoned_dataset(tmp_path)
    verdict = judge({"one": np.random.default_rng(0).normal(0, 1, 30)})
    found = investigate(Findings(data.samples, verdict), data)
    assert found.trigger is None and found.target is None
    assert probe(found, data, None) is None
