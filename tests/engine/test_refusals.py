"""Checkpoints that must not be used, in each family: loaded, inspected and verified."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from disp_engine.errors import InvalidModelError
from disp_engine.models.checkpoint import LARGEST_CARD
from disp_engine.models.inspection import inspect_model, verify_model
from disp_engine.registry import card_defaults, load_model
from tests.engine.models import GEMMA, gemma_folder

FIXTURES = Path(__file__).parents[1] / "fixtures"
TENSORS = {
    "llada_v": "model.mm_projector.2.bias",
    "lavida": "model.mm_projector.2.bias",
    "diffusion_gemma": "model.encoder.embed_vision.embedding_projection.weight",
}
RECORDED = shutil.ignore_patterns("expected.safetensors", "inputs.safetensors")
Break = Callable[[Path, str], None]


@pytest.fixture(params=TENSORS)
def family(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def folder(family: str, tmp_path: Path) -> Path:
    if family == "diffusion_gemma":
        return gemma_folder(tmp_path / "model")
    shutil.copytree(FIXTURES / family / "anyres", tmp_path / "model", ignore=RECORDED)
    return tmp_path / "model"


def rewrite(folder: Path, name: str, value: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(name, None)
    added = {} if value is None else {name: value}
    save_file(tensors | added, folder / "model.safetensors")


def lack(folder: Path, name: str) -> None:
    rewrite(folder, name, None)


def exceed(folder: Path, name: str) -> None:
    rewrite(folder, "model.extra", torch.zeros(1))


def misshape(folder: Path, name: str) -> None:
    rewrite(folder, name, torch.zeros(3))


def poison(folder: Path, name: str) -> None:
    value = load_file(folder / "model.safetensors")[name]
    value.view(-1)[0] = torch.nan
    rewrite(folder, name, value)


def truncate(folder: Path, name: str) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickle(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")


def repeat_key(folder: Path, name: str) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + size].rstrip()
    entry = json.dumps(json.loads(header)[name])
    header = header[:-1] + f", {json.dumps(name)}: {entry}}}".encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + size :])


def oversize(folder: Path, name: str) -> None:
    path = folder / "model.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])


def overfill(folder: Path, name: str) -> None:
    with (folder / "tokenizer.json").open("ab") as file:
        file.truncate(65 * 2**20)  # a hole; nothing is written


def ask_for_code(folder: Path, name: str) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw["auto_map"] = {"AutoModel": "modeling_evil.Model"}
    (folder / "config.json").write_text(json.dumps(raw))


BROKEN: dict[str, tuple[Break, str]] = {
    "lacking": (lack, "1 missing: {name}"),
    "exceeding": (exceed, r"unexpected: model\.extra \(in model\.safetensors\)"),
    "misshapen": (misshape, r"model\.safetensors: {name} has shape \(3,\)"),
    "poisoned": (poison, r"model\.safetensors: {name} holds values that are not finite"),
    "truncated": (truncate, r"model\.safetensors is truncated"),
    "pickled": (pickle, r"pytorch_model\.bin is a pickle.*save_file"),
    "repeated": (repeat_key, r"model\.safetensors: the header has the key '{name}' a second time"),
    "oversized": (oversize, r"model\.safetensors: a header of 1099511627776 bytes is larger"),
    "overfull": (overfill, r"tokenizer\.json takes more than"),
    "asking": (ask_for_code, r"config\.json: auto_map asks for remote code"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_checkpoint_that_must_not_be_used_is_refused_with_file_key_and_reason(
    folder: Path, family: str, how: str
) -> None:
    change, message = BROKEN[how]
    name = TENSORS[family]
    change(folder, name)
    wanted = message.format(name=name.replace(".", r"\."))
    with pytest.raises(InvalidModelError, match=wanted):
        load_model(folder)
    if how == "asking":
        for look in (inspect_model, verify_model):
            with pytest.raises(InvalidModelError, match=wanted):
                look(folder)
        return
    assert re.search(wanted, "\n".join(verify_model(folder).problems))
    if how != "poisoned":  # an inspection reads no values
        assert re.search(wanted, "\n".join(inspect_model(folder).problems))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", r"card\.yaml is not YAML"),
        ("[" * 5000, r"card\.yaml is not YAML"),
        ("- 1", r"card\.yaml: defaults must be a table"),
        ("sha256: [1]", r"card\.yaml: sha256 must be a table"),
        (" " * (LARGEST_CARD + 1), r"card\.yaml takes more than"),
    ],
)
def test_a_card_that_cannot_be_read_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "card.yaml").write_text(text)
    with pytest.raises(InvalidModelError, match=message):
        card_defaults(folder)
    assert re.search(message, "\n".join(verify_model(folder).problems))


def test_hashes_without_names_are_refused(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text("00  config.json\nabc\n")
    problems = "\n".join(verify_model(folder).problems)
    assert "SHA256SUMS: line 2 is no hash and name" in problems


@pytest.mark.parametrize("part", [None, "text_config", "vision_config"])
@pytest.mark.parametrize("dtype", [[], "[]", 3, "int8"])
def test_a_gemma_of_no_type_that_there_is_is_refused(
    tmp_path: Path, part: str | None, dtype: object
) -> None:
    folder = gemma_folder(tmp_path / "model")
    raw = json.loads((GEMMA / "config.json").read_text())
    (raw if part is None else raw[part])["dtype"] = dtype
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(InvalidModelError, match=r"config\.json: dtype .* is not one of"):
        inspect_model(folder)
