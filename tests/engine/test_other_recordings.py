"""Adapters against recordings of other sizes, aspects and settings than the given ones."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity import compare_all, main
from tests.recordings.literal import Variant
from tests.recordings.recorder import Recorder

FINE = dict(hidden_size=20, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2,
            image_size=28, patch_size=7)  # fmt: skip
ODD = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3,
           image_size=98, patch_size=14)  # fmt: skip
PADDED = Variant(
    tied=True,
    generations={
        "blocks": {"case": "two_images_tensor4d", "steps": 6, "gen_length": 12, "block_length": 4},
        "cfg": {
            "case": "one_image",
            "steps": 4,
            "gen_length": 8,
            "block_length": 8,
            "cfg_scale": 1.5,
        },
    },
)
TILED = Variant(
    seed=2, width=40, heads=4, groups=4, rows=310, tower=FINE, aspect="anyres_max_2",
    pinpoints=[[28 * i, 28 * j] for i in (1, 2, 3) for j in (1, 2, 4)],
    sizes=((90, 50), (31, 120)),
    generations={
        "stops": {"case": "one_image", "steps": 12, "gen_length": 12, "block_length": 6,
                  "stopping_criteria": ["a", "b", "c"]},
        "suffix": {"case": "two_images", "steps": 5, "gen_length": 8, "block_length": 8,
                   "generation_suffix": " end."},
    },
)  # fmt: skip
SQUARE = Variant(seed=3, aspect="square", merge="flat", sizes=((30, 60), (61, 20)))
SPATIAL = Variant(
    seed=4, tower=FINE, aspect="anyres", merge="spatial", pinpoints="[(28, 56), (56, 56), (84, 28)]"
)
POOLED = Variant(
    family="lavida", seed=5, tied=True, groups=3,
    generations={
        "ratio": {"case": "one_image", "max_new_tokens": 12, "block_length": 6, "prefix_lm": True,
                  "step_ratio": 0.5, "schedule": "logit_normal", "remasking": "margin"},
        "tensor": {"case": "two_images_tensor4d", "max_new_tokens": 9, "block_length": 3,
                   "prefix_lm": False, "step_per_block": 2, "remasking": "entrophy"},
    },
)  # fmt: skip
POOLED_TILES = Variant(
    family="lavida", seed=6, tower=ODD, rows=320, groups=6, aspect="anyres",
    pinpoints=[[98, 196], [196, 98], [196, 196], [294, 98], [98, 392]],
    sizes=((300, 70), (101, 260)),
    generations={
        "shift": {"case": "two_images", "max_new_tokens": 16, "block_length": 16, "step_ratio": 0.5,
                  "prefix_lm": False, "schedule": "shift", "schedule_kwargs": {"shift": 2}},
        "cosine": {"case": "one_image", "max_new_tokens": 8, "block_length": 8, "prefix_lm": True,
                   "schedule": "cosine"},
    },
)  # fmt: skip
VARIANTS = {
    "padded": PADDED, "tiled": TILED, "square": SQUARE, "spatial": SPATIAL, "pooled": POOLED,
    "pooled_tiles": POOLED_TILES,
}  # fmt: skip


def literal(variant: Variant) -> Recorder:
    """A recorder whose pinpoints are numbers, however the config writes them."""
    points = variant.pinpoints
    if not isinstance(points, str):
        return Recorder(variant)
    recorder = Recorder(replace(variant, pinpoints=[[28, 56], [56, 56], [84, 28]]))
    recorder.variant = variant
    return recorder


@pytest.mark.parametrize("name", VARIANTS)
def test_a_literal_reading_of_the_facts_is_reproduced_at_other_sizes(
    name: str, tmp_path: Path
) -> None:
    folder = literal(VARIANTS[name]).write(tmp_path / name)
    result = compare_all(folder)
    assert [case for case in result["cases"] if not case["holds"]] == []
    assert len(result["cases"]) > len(load_file(folder / "expected.safetensors"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Recorder(replace(PADDED, generations={})).write(tmp_path / "model")


def failures(folder: Path, tmp_path: Path) -> list[str]:
    """What the command says does not hold; its file must say the same."""
    status = main([str(folder), "--json", str(tmp_path / "out.json")])
    told = json.loads((tmp_path / "out.json").read_text())
    failed = [f"{c['case']}.{c['quantity']}" for c in told["cases"] if not c["holds"]]
    assert status == int(bool(failed)) and told["holds"] == (not failed)
    return failed


def test_what_nobody_knows_how_to_compare_does_not_hold(folder: Path, tmp_path: Path) -> None:
    expected = load_file(folder / "expected.safetensors")
    save_file(
        expected | {"one_image.new_thing": torch.ones(1), "gen.unheard_of": torch.ones(1)},
        folder / "expected.safetensors",
    )
    assert failures(folder, tmp_path) == ["gen.unheard_of", "one_image.new_thing"]


def test_pixels_of_a_picture_that_is_not_there_do_not_hold(folder: Path, tmp_path: Path) -> None:
    inputs = load_file(folder / "inputs.safetensors")
    save_file(inputs | {"pixel_values_7": torch.ones(3, 42, 42)}, folder / "inputs.safetensors")
    assert failures(folder, tmp_path) == ["pictures.pixel_values_7"]


def test_a_wrong_number_does_not_hold(folder: Path, tmp_path: Path) -> None:
    expected = load_file(folder / "expected.safetensors")
    expected["one_image.response_logits"][0, 0] += (
        0.01 * expected["one_image.response_logits"].max()
    )
    save_file(expected, folder / "expected.safetensors")
    assert failures(folder, tmp_path) == ["one_image.response_logits"]


def test_a_folder_that_cannot_be_loaded_is_a_failure_and_no_traceback(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "tokenizer.json").unlink()
    assert failures(folder, tmp_path)[0].startswith("load.raised InvalidModelError")


def test_recordings_without_plain_logits_are_read(folder: Path, tmp_path: Path) -> None:
    expected = load_file(folder / "expected.safetensors")
    kept = {name: v for name, v in expected.items() if not name.endswith(".response_logits")}
    save_file(kept, folder / "expected.safetensors")
    assert failures(folder, tmp_path) == []
