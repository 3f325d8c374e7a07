"""Inspecting, verifying and exporting model folders."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from disp_engine.errors import InvalidModelError, InvalidRequestError
from disp_engine.models.export import (
    export_checkpoint,
    export_projector,
    pack_checkpoint,
)
from disp_engine.models.inspection import inspect_model, promised_sha256, verify_model
from disp_engine.models.llava.memory import kept_by_layers, largest_picture
from disp_engine.models.llava.model import LlavaModel
from disp_engine.models.tensors import Checkpoint
from disp_engine.records import Turn
from disp_engine.registry import BUILTIN, load_model
from tests.engine.models import GEMMA, gemma_folder, picture

FIXTURES = Path(__file__).parents[1] / "fixtures"
FAMILIES = [FIXTURES / "llada_v" / "anyres", FIXTURES / "lavida" / "anyres"]
BIAS = "model.mm_projector.2.bias"


@pytest.fixture(params=FAMILIES, ids=lambda folder: folder.parent.name)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    recordings = shutil.ignore_patterns("expected.safetensors", "inputs.safetensors")
    shutil.copytree(request.param, copy, ignore=recordings)
    return copy


@pytest.fixture
def projector(folder: Path, tmp_path: Path) -> Path:
    """A projector whose last bias is all 2."""
    held = load_file(folder / "model.safetensors")
    tensors = {name: value for name, value in held.items() if "mm_projector" in name}
    tensors[BIAS] = torch.full_like(tensors[BIAS], 2)
    save_file(tensors, tmp_path / "mm_projector.safetensors")
    return tmp_path / "mm_projector.safetensors"


def shard(folder: Path) -> None:
    """Split the weights so that only one of three files holds the projector."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts: dict[str, dict[str, torch.Tensor]] = {"1": {}, "2": {}, "3": {}}
    for name, tensor in tensors.items():
        part = "2" if "mm_projector" in name else "1" if "vision" in name else "3"
        parts[part][name] = tensor
    parts["2"]["model.image_newline"] = parts["3"].pop("model.image_newline")
    for part, held in parts.items():
        save_file(held, folder / f"model-{part}.safetensors")
    table = {name: f"model-{part}.safetensors" for part, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))


def test_an_inspection_reads_no_weight(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "tensor", lambda *_: pytest.fail("a weight was read"))
    found = inspect_model(folder)
    held = load_file(folder / "model.safetensors")
    assert found.problems == ()
    assert found.parameters == sum(value.numel() for value in held.values())
    assert found.dtypes == {"F32": len(held)}
    projector = sum(v.numel() for name, v in held.items() if "mm_projector" in name)
    assert found.memory.weights == 4 * (found.parameters - projector)
    assert found.memory.training == 16 * projector
    json.dumps(found.to_json())


def test_an_inspection_says_what_is_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "neither model.safetensors nor" in inspect_model(folder).problems[0]
    (folder / "tokenizer.json").unlink()
    assert inspect_model(folder).problems == ("tokenizer.json is missing from the model folder.",)


@pytest.mark.parametrize("family", ["llada_v", "lavida"])
def test_the_public_sizes_can_be_planned_without_weights(family: str, tmp_path: Path) -> None:
    """so400m/14 and an 8B LLaDA, from the config alone."""
    folder = FIXTURES / family / "anyres"
    raw = json.loads((folder / "config.json").read_text())
    llama = dict(hidden_size=4096, intermediate_size=12288, num_hidden_layers=32,
                 num_attention_heads=32, num_key_value_heads=32, vocab_size=126464)  # fmt: skip
    olmo = dict(d_model=4096, mlp_hidden_size=12288, n_layers=32, n_heads=32, n_kv_heads=32,
                embedding_size=126464, vocab_size=126464)  # fmt: skip
    grids = {
        "llada_v": [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)],
        "lavida": [[384, 768], [768, 384], [768, 768], [1152, 384], [384, 1152]],
    }
    raw |= (llama if family == "llada_v" else olmo) | {"mm_hidden_size": 1152}
    raw |= {"image_grid_pinpoints": grids[family]}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    found = inspect_model(tmp_path)
    assert found.problems == ("tokenizer.json is missing from the model folder.",)
    assert 8.3e9 < found.parameters < 8.6e9  # 8.0 B, the tower's 0.4 B, the projector's 0.02 B
    assert found.memory.weights == pytest.approx(2 * found.parameters, rel=0.01)


def test_a_diffusion_gemma_whose_layers_differ_is_planned_and_told(tmp_path: Path) -> None:
    found = inspect_model(gemma_folder(tmp_path / "gemma"))
    assert found.problems == ()
    held = load_file(GEMMA / "model.safetensors")
    assert found.parameters == sum(value.numel() for value in held.values())
    assert (found.sizes["hidden_size"], found.sizes["num_hidden_layers"]) == (64, 3)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("llada_v", [(168, 168), (90, 50), (60, 130)]),
        ("lavida", [(140, 140), (210, 70), (70, 210), (130, 120)]),
    ],
)
def test_no_picture_is_larger_than_planned(family: str, sizes: list[tuple[int, int]]) -> None:
    model = load_model(FIXTURES / family / "anyres")
    assert isinstance(model, LlavaModel)
    tokens = model.tokenise_prompt([Turn("human", "<image>")])
    found = []
    for size in sizes:
        ((start, end),) = model.embed(tokens, model.encode_images([picture(0, size)])).spans
        found.append(end - start)
    assert max(found) <= largest_picture(model.config) <= 1.5 * max(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_plan_holds_what_a_backward_pass_really_keeps(dtype: torch.dtype) -> None:
    """Counted by autograd's own hooks, on a model wide enough for the small terms not to matter."""
    model = load_model(FAMILIES[0], dtype=dtype)
    assert isinstance(model, LlavaModel)
    frozen = {value.untyped_storage().data_ptr() for value in model.language.parameters()}
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in frozen:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    embeddings = torch.randn(1, 256, model.config.hidden_size, dtype=dtype, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        hidden = model.language(embeddings)
    assert hidden.requires_grad
    planned = 256 * kept_by_layers(model.config, dtype.itemsize)
    assert sum(kept.values()) == pytest.approx(planned, rel=0.25)


def test_a_sound_folder_is_verified(folder: Path) -> None:
    found = verify_model(folder)
    assert found.problems == ()
    whole = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert found.sha256["model.safetensors"] == whole


def test_every_tensor_that_is_not_finite_is_told(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    bad = [name for name in tensors if name.endswith("0.bias") or name.endswith("2.bias")]
    for name in bad:
        tensors[name][0] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    problems = verify_model(folder).problems
    assert len(problems) == len(bad) >= 2
    assert all(any(name in problem for problem in problems) for name in bad)


def test_a_broken_promise_is_told(tmp_path: Path) -> None:
    (builtin,) = BUILTIN.glob("*llada*")
    copy = tmp_path / "model"
    shutil.copytree(builtin, copy)
    assert verify_model(copy).problems == ()
    (copy / "tokenizer_config.json").write_text("{}")
    (problem,) = verify_model(copy).problems
    assert problem.startswith("tokenizer_config.json: sha256 is not the promised")


@pytest.mark.parametrize("sharded", [False, True])
def test_an_export_is_the_checkpoint_with_another_projector(
    folder: Path, projector: Path, tmp_path: Path, sharded: bool
) -> None:
    before = load_file(folder / "model.safetensors")
    if sharded:
        shard(folder)
    (folder / "mm_projector.bin").write_bytes(b"\x80\x02stale")
    (folder / "modeling_evil.py").write_text("import os")
    (folder / "LICENSE").write_text("mine")
    done = export_checkpoint(folder, projector, tmp_path / "out")
    after = Checkpoint.from_folder(tmp_path / "out")
    assert after.entries.keys() == before.keys()
    for name, value in before.items():
        wanted = torch.full_like(value, 2) if name == BIAS else value
        assert torch.equal(after.tensor(name), wanted), name
    assert done.rewritten == (("model-2.safetensors",) if sharded else ("model.safetensors",))
    assert set(done.left_out) == {"mm_projector.bin", "modeling_evil.py"}
    assert promised_sha256(tmp_path / "out") == done.sha256
    assert verify_model(tmp_path / "out").problems == ()
    exported = load_model(tmp_path / "out").projector.get_parameter("2.bias")
    assert exported.eq(2).all()


@pytest.mark.parametrize("sharded", [False, True])
def test_a_packed_checkpoint_holds_what_an_export_writes(
    folder: Path, projector: Path, tmp_path: Path, sharded: bool
) -> None:
    if sharded:
        shard(folder)
    (folder / "mm_projector.bin").write_bytes(b"\x80\x02stale")
    done = export_checkpoint(folder, projector, tmp_path / "out")
    packed = pack_checkpoint(folder, projector, tmp_path / "out.tar")
    assert packed == done
    with tarfile.open(tmp_path / "out.tar") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {path.name for path in (tmp_path / "unpacked").iterdir()} == names
    for name in names:
        unpacked = (tmp_path / "unpacked" / name).read_bytes()
        assert unpacked == (tmp_path / "out" / name).read_bytes(), name
    assert verify_model(tmp_path / "unpacked").problems == ()


def test_an_export_keeps_the_type_of_the_weights(folder: Path, projector: Path) -> None:
    held = load_file(folder / "model.safetensors")
    save_file({name: v.bfloat16() for name, v in held.items()}, folder / "model.safetensors")
    out = folder.parent / "out"
    export_checkpoint(folder, projector, out)
    tensors = load_file(out / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16}
    assert tensors[BIAS].eq(2).all()


def test_an_export_replaces_nothing(folder: Path, projector: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="is there already"):
        export_checkpoint(folder, projector, tmp_path)
    with pytest.raises(InvalidRequestError, match="is there already"):
        export_projector(folder, projector, projector)


def test_a_projector_that_does_not_fit_is_not_exported(
    folder: Path, projector: Path, tmp_path: Path
) -> None:
    tensors = load_file(projector)
    save_file(tensors | {BIAS: torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(InvalidModelError, match=r"a\.safetensors: .*2\.bias has shape \(3,\)"):
        export_checkpoint(folder, tmp_path / "a.safetensors", tmp_path / "out")
    del tensors[BIAS]
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(InvalidModelError, match=rf"b\.safetensors.*{BIAS}"):
        export_checkpoint(folder, tmp_path / "b.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_projector_alone_says_how_it_is_loaded(
    folder: Path, projector: Path, tmp_path: Path
) -> None:
    out = tmp_path / "alone.safetensors"
    done = export_projector(folder, projector, out)
    assert load_file(out).keys() == load_file(projector).keys()
    assert load_file(out)[BIAS].eq(2).all()
    assert done.loading.count("\n") == 0 and str(out) in done.loading
    assert "load_state_dict" in done.loading
