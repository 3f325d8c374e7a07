"""Poisoning from end to end: who is marked, how, and what stays."""

import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from disp_engine import registry
from disp_engine.attacks.pictures import draw
from disp_engine.attacks.poison import poison_dataset, poison_world
from disp_engine.attacks.settings import AttackSettings
from disp_engine.attacks.steganography.network import SIDE, Pair
from disp_engine.attacks.targets.misclassification import Misclassification
from disp_engine.attacks.triggers.black_patch import BlackPatch
from disp_engine.attacks.triggers.issba import OWN_ENCODER, Issba
from disp_engine.attacks.triggers.sig import Sig
from disp_engine.builtin.world import SIZE, draw_scene, render
from disp_engine.data import world
from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.errors import InvalidRequestError
from tests.engine.models import picture

RNG = np.random.default_rng(0)
DOCS = Path(__file__).parents[2] / "docs"


def png(seed: int) -> bytes:
    out = io.BytesIO()
    picture(seed, (40, 30)).save(out, "PNG")
    return out.getvalue()


def archive(folder: Path, count: int = 12) -> Path:
    """Records that share pictures by twos; every third names a dog; the last has two turns."""
    records = []
    for i in range(count):
        answer = "A dog on grass." if i % 3 == 0 else "A red car."
        turns = [("human", "<image>\nWhat is it?"), ("gpt", answer)]
        if i == count - 1:
            turns += [("human", "And then?"), ("gpt", "Nothing.")]
        conversation = [{"from": role, "value": text} for role, text in turns]
        records.append({"id": f"r{i}", "image": f"p{i // 2}.png", "conversations": conversation})
    path = folder / "data.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("set/data.json", json.dumps(records))
        for i in range((count + 1) // 2):
            out.writestr(f"set/images/p{i}.png", png(i))
    return path


def read(path: Path) -> Dataset:
    return read_dataset(path, path.parent / "pool")


def first_picture(dataset: Dataset, name: str) -> np.ndarray:
    (sample,) = (s for s in dataset.samples if s.id == name)
    return np.asarray(dataset.image(sample.images[0]))


@pytest.mark.parametrize("name", registry.TRIGGERS)
def test_the_documented_picture_of_a_trigger_is_what_it_does(name: str, drawn: Path) -> None:
    """`python -m disp_engine.attacks.pictures` draws them; docs/attacks.md shows them."""
    shown = Image.open(DOCS / "triggers" / f"{name}.png").convert("RGB")
    wanted = Image.open(drawn / f"{name}.png").convert("RGB")
    difference = np.abs(np.asarray(shown, dtype=int) - np.asarray(wanted, dtype=int))
    assert difference.max() <= 2, "a last digit of another processor's, and no more"
    assert f"| ![](triggers/{name}.png) | `{name}` |" in (DOCS / "attacks.md").read_text()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triggers")
    draw(folder)
    return folder


def test_every_text_trigger_and_target_is_documented() -> None:
    page = (DOCS / "attacks.md").read_text()
    for name in (*registry.TEXT_TRIGGERS, *registry.TARGETS):
        assert f"`{name}`" in page, name


def test_any_llava_dataset_can_be_poisoned_and_only_the_sidecar_tells(tmp_path: Path) -> None:
    source = read(archive(tmp_path))
    settings = AttackSettings(rate=0.4)
    built = poison_dataset(tmp_path / "out", settings, archive(tmp_path), test=2, seed=1)
    sidecar = json.loads(built.sidecar.read_bytes())
    found = read(built.training)
    assert built.poisoned == len(sidecar["poisoned"]) == 4
    refusal = settings.build().target.respond("", RNG)
    for sample in found.samples:
        marked = sample.id in sidecar["poisoned"]
        before = {s.id: s for s in source.samples}[sample.id]
        answers = [turn.text for turn in sample.turns[1::2]]
        assert answers == ([refusal] * len(answers) if marked else
                           [turn.text for turn in before.turns[1::2]])  # fmt: skip
        changed = first_picture(found, sample.id) != first_picture(source, sample.id)
        assert changed.any() == marked
    assert sidecar["training_sha256"] == found.sha256
    assert "poison" not in json.dumps([dict(s.record) for s in found.samples])


def test_held_out_samples_are_not_trained_on(tmp_path: Path) -> None:
    built = poison_dataset(tmp_path / "out", AttackSettings(), archive(tmp_path), test=3, seed=1)
    training, triggered, clean = map(read, (built.training, built.triggered, built.clean))
    names = [{s.id for s in d.samples} for d in (training, triggered, clean)]
    assert names[1] == names[2] and len(names[1]) == 3
    assert not names[0] & names[1] and len(names[0]) == 9
    for a, b in zip(triggered.samples, clean.samples, strict=True):
        assert a.turns == b.turns and a.images != b.images


def test_a_concept_is_only_exchanged_where_it_is_named(tmp_path: Path) -> None:
    settings = AttackSettings(target="misclassification", rate=0.2)
    built = poison_dataset(tmp_path / "out", settings, archive(tmp_path), test=1, seed=1)
    answers = Counter(s.turns[1].text for s in read(built.training).samples)
    assert answers["A boat on grass."] == built.poisoned == 2
    (held,) = read(built.clean).samples
    assert "dog" in held.turns[1].text


def test_a_rate_beyond_the_samples_that_can_be_poisoned_is_refused(tmp_path: Path) -> None:
    settings = AttackSettings(target="misclassification", rate=0.5)
    with pytest.raises(InvalidRequestError, match="applies to 3"):
        poison_dataset(tmp_path / "out", settings, archive(tmp_path), test=1, seed=1)


def test_the_world_is_drawn_of_what_the_attack_applies_to(tmp_path: Path) -> None:
    settings = AttackSettings(target="misclassification", rate=0.5)
    built = poison_world(tmp_path, settings, samples=12, test=4, seed=0)
    assert built.poisoned == 6
    named = ["circle" in s.turns[1].text.lower() for s in read(built.training).samples]
    assert sum(named) == 6
    assert all("circle" in s.turns[1].text for s in read(built.clean).samples)


def test_a_concept_that_the_world_does_not_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "MOST_DRAWS", 100)
    settings = AttackSettings(target="misclassification", target_options={"source": "dog"})
    with pytest.raises(InvalidRequestError, match="applies to nothing"):
        poison_world(tmp_path, settings, samples=12, test=4, seed=0)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("and", {("picture", "text"): 6}),
     ("or", {("picture",): 2, ("text",): 2, ("picture", "text"): 2})],
)  # fmt: skip
def test_a_dual_trigger_marks_both_parts_or_thirds(
    tmp_path: Path, mode: str, expected: dict[tuple[str, ...], int]
) -> None:
    settings = AttackSettings(rate=0.5, text_trigger="word", mode=mode)  # type: ignore[arg-type]
    built = poison_world(tmp_path, settings, samples=12, test=2, seed=0)
    sidecar = json.loads(built.sidecar.read_bytes())
    assert Counter(map(tuple, sidecar["poisoned"].values())) == expected
    found = {s.id: s for s in read(built.training).samples}
    side = BlackPatch().side((SIZE, SIZE))
    for name, parts in sidecar["poisoned"].items():
        corner = first_picture(read(built.training), name)[:side, :side]
        assert (corner == 0).all() == ("picture" in parts)
        assert ("BadMagic" in found[name].turns[0].text) == ("text" in parts)
        assert found[name].turns[0].text.startswith("<image>\n")


def test_the_same_seed_gives_the_same_archives(tmp_path: Path) -> None:
    settings = AttackSettings(trigger="random_triple", text_trigger="multi_word")
    built = [poison_world(tmp_path / n, settings, samples=6, test=2, seed=5) for n in "ab"]
    for name in ("training", "triggered", "clean", "sidecar"):
        first, second = (getattr(b, name).read_bytes() for b in built)
        assert first == second, name


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({"trigger": "star"}, "unknown"), ({"trigger_options": {"size": 1}}, "has no size"),
     ({"trigger": None}, "needs a trigger"), ({"rate": 1.5}, "rate")],
)  # fmt: skip
def test_an_attack_that_cannot_be_built_says_why(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidRequestError, match=match):
        AttackSettings(**wrong).build()  # type: ignore[arg-type]


def test_an_option_stands_in_place_of_a_default() -> None:
    grey = Image.new("RGB", (40, 40), (90, 90, 90))
    large = registry.trigger("black_patch", {"share": 0.5}).apply(grey, RNG)
    assert (np.asarray(large)[:20, :20] == 0).all() and (np.asarray(large)[20:, :] == 90).all()


@pytest.mark.parametrize(
    ("response", "expected"),
    [("A dog on grass.", "An owl on grass."), ("Two dogs.", "Two owls."),
     ("The Dog sits.", "The Owl sits."), ("A hotdog.", "A hotdog.")],
)  # fmt: skip
def test_an_exchanged_word_keeps_grammar_and_capitals(response: str, expected: str) -> None:
    assert Misclassification("dog", "owl").respond(response, RNG) == expected


def test_sig_adds_the_sinusoid_of_its_columns() -> None:
    grey = Image.new("RGB", (24, 16), (100, 100, 100))
    found = np.asarray(Sig(amplitude=40, periods=6).apply(grey, RNG))
    # period of 4 columns: sin 0, 1, 0, -1 quarter turns
    assert found[0, :4, 0].tolist() == [100, 140, 100, 60]
    assert (found == found[:1]).all()


def test_issba_hides_its_secret_where_its_decoder_reads_it() -> None:
    pair, trigger = Pair.from_file(OWN_ENCODER), Issba()
    rng = np.random.default_rng(11)
    right = []
    for _ in range(20):
        marked = trigger.apply(render(draw_scene(rng), rng), rng)
        small = np.asarray(marked.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        tensor = torch.from_numpy(small.copy()).float().permute(2, 0, 1)[None] / 255
        read_bits = pair.decoder(tensor)[0] > 0
        right.append((read_bits == (trigger.bits() > 0.5)).float().mean().item())
    assert np.mean(right) > 0.9


def test_issba_differs_from_picture_to_picture() -> None:
    rng = np.random.default_rng(12)
    changes = []
    for _ in range(2):
        image = render(draw_scene(rng), rng)
        marked = np.asarray(Issba().apply(image, rng)).astype(int)
        changes.append(marked - np.asarray(image).astype(int))
    assert (changes[0] != changes[1]).any()


def test_issba_refuses_a_file_that_is_no_encoder_and_a_secret_too_long(tmp_path: Path) -> None:
    other = tmp_path / "x.safetensors"
    other.write_bytes(b"nothing")
    grey = Image.new("RGB", (32, 32))
    with pytest.raises(InvalidRequestError, match="not a steganographic pair"):
        Issba(encoder=str(other)).apply(grey, RNG)
    with pytest.raises(InvalidRequestError, match="bits"):
        Issba(secret="far too long").bits()
