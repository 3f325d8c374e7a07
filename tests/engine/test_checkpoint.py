"""Weight files and configs that must not be trusted, each made by hand."""

import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from disp_engine.errors import InvalidModelError
from disp_engine.models.checkpoint import read_json, refuse_remote_code
from disp_engine.models.tensors import LARGEST_HEADER, Checkpoint, read_header
from disp_engine.registry import family, load_model
from tests.engine.models import gemma_folder

FIXTURES = Path(__file__).parents[1] / "fixtures"
FAMILIES = [FIXTURES / "llada_v" / "anyres", FIXTURES / "lavida" / "anyres"]
PROJECTOR = "model.mm_projector.2.bias"


@pytest.fixture(params=FAMILIES, ids=lambda folder: folder.parent.name)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(request.param, copy)
    return copy


def write(path: Path, header: object, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def tensor(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_header_tells_names_shapes_and_places(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(2, 3), "y": torch.zeros(4, dtype=torch.bfloat16)}, path)
    held = {entry.name: (entry.dtype, entry.shape, entry.size) for entry in read_header(path)}
    assert held == {"x": ("F32", (2, 3), 24), "y": ("BF16", (4,), 8)}
    assert Checkpoint.from_files([path]).tensor("x").tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (b'{"x": {}, "x": {}}', b"", "has the key 'x' a second time"),
        (b"{", b"", "header is not JSON"),
        ('{"x": {}}'.encode("utf-16"), b"", "header is not JSON"),
        (b"[]", b"", "must hold a JSON object"),
        (b"[" * 100_000, b"", "header is not JSON"),
        ({"x": {"dtype": "F32"}}, b"", "'x' lacks a dtype, a shape or offsets"),
        ({"x": tensor(0, 4, [-1])}, b"1234", "'x' has impossible sizes"),
        ({"x": tensor(0, 4, [2])}, b"1234", r"'x' takes 4 bytes, which F32 \(2,\) does not"),
        ({"x": tensor(0, 8, [2])}, b"1234", "truncated: 'x' should end at byte 8 of 4"),
        ({"x": tensor(0, 4, [1])}, b"12345678", "4 bytes belong to no tensor"),
        (
            {"x": tensor(0, 4, [1]), "y": tensor(0, 4, [1])},
            b"1234",
            "'y' overlaps another or leaves a gap",
        ),
        ({"x": tensor(4, 8, [1])}, b"12345678", "'x' overlaps another or leaves a gap"),
    ],
)
def test_a_broken_header_is_refused_with_file_and_reason(
    tmp_path: Path, header: object, body: bytes, message: str
) -> None:
    path = write(tmp_path / "bad.safetensors", header, body)
    with pytest.raises(InvalidModelError, match=rf"bad\.safetensors.*{message}"):
        read_header(path)


def test_a_header_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes((LARGEST_HEADER + 1).to_bytes(8, "little") + b"{}")
    with pytest.raises(InvalidModelError, match=rf"{LARGEST_HEADER + 1} bytes is larger than"):
        read_header(path)


def test_a_file_that_ends_within_its_header_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes((100).to_bytes(8, "little") + b"{}")
    with pytest.raises(InvalidModelError, match=r"bad\.safetensors is truncated"):
        read_header(path)


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """A length of 0x80 begins as a pickle does."""
    text = json.dumps({"x": tensor(0, 4, [1])}).encode().ljust(0x80)
    path = write(tmp_path / "good.safetensors", text, b"1234")
    assert path.read_bytes()[0] == 0x80
    assert [entry.name for entry in read_header(path)] == ["x"]


def test_a_pickle_renamed_is_still_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"x": [1.0] * 100}))
    with pytest.raises(InvalidModelError, match=r"model\.safetensors is a pickle.*save_file"):
        load_model(folder)


def test_what_torch_saves_renamed_is_a_pickle(folder: Path) -> None:
    with zipfile.ZipFile(folder / "model.safetensors", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": 1}))
    with pytest.raises(InvalidModelError, match=r"model\.safetensors is a pickle"):
        load_model(folder)


def test_a_truncated_checkpoint_is_refused(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(InvalidModelError, match=r"model\.safetensors is truncated: 'model\."):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_refused(folder: Path, value: float) -> None:
    rewrite(folder, PROJECTOR, torch.full((64,), value))
    message = rf"model\.safetensors: {PROJECTOR} holds values that are not finite"
    with pytest.raises(InvalidModelError, match=message):
        load_model(folder)


def test_weights_that_are_no_floats_are_refused(folder: Path) -> None:
    rewrite(folder, PROJECTOR, torch.zeros(64, dtype=torch.int8))
    with pytest.raises(InvalidModelError, match=rf"{PROJECTOR} has dtype I8"):
        load_model(folder)


def test_no_weight_is_read_before_all_shapes_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(folder, PROJECTOR, torch.zeros(3))
    monkeypatch.setattr(Checkpoint, "tensor", lambda *_: pytest.fail("a weight was read"))
    message = rf"model\.safetensors: {PROJECTOR} has shape \(3,\) where \(64,\) is needed"
    with pytest.raises(InvalidModelError, match=message):
        load_model(folder)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    with pytest.raises(InvalidModelError, match=r"b\.safetensors: x is there a second time"):
        Checkpoint.from_files(files)


def test_two_names_of_one_tensor_are_refused(folder: Path) -> None:
    rewrite(folder, "model.transformer.ln_f.weight", torch.ones(64))
    rewrite(folder, "model.norm.weight", torch.ones(64))
    with pytest.raises(InvalidModelError, match="is there a second time"):
        load_model(folder)


def test_an_index_beside_whole_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(InvalidModelError, match="has both"):
        load_model(folder)


@pytest.mark.parametrize("name", ["x", "z"])
def test_an_index_that_is_not_true_is_refused(tmp_path: Path, name: str) -> None:
    save_file({"x": torch.zeros(1), "y": torch.zeros(1)}, tmp_path / "a.safetensors")
    table = {"y": "a.safetensors", name: "a.safetensors"}
    if name == "x":
        del table["y"]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    with pytest.raises(InvalidModelError, match=r"index\.json: [xyz] .* a\.safetensors"):
        Checkpoint.from_folder(tmp_path)


@pytest.mark.parametrize(
    "key", ["auto_map", "trust_remote_code", "_attn_implementation_internal", "custom_pipelines"]
)
@pytest.mark.parametrize("file", ["config.json", "vision_config.json", "tokenizer_config.json"])
def test_a_config_that_asks_for_remote_code_is_refused(folder: Path, key: str, file: str) -> None:
    raw = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(raw | {key: {"AutoModel": "evil.Model"}}))
    with pytest.raises(InvalidModelError, match=rf"{file}: {key} asks for remote code"):
        load_model(folder)


def test_remote_code_is_found_at_any_depth() -> None:
    with pytest.raises(InvalidModelError, match=r"a\.b\.auto_map asks for remote code"):
        refuse_remote_code({"a": {"b": [{"auto_map": 1}]}}, "config.json")


def test_a_key_that_stands_twice_in_a_config_is_refused(folder: Path) -> None:
    text = (folder / "config.json").read_text().rstrip().removesuffix("}")
    (folder / "config.json").write_text(text + ', "model_type": "other"}')
    with pytest.raises(InvalidModelError, match=r"config\.json has the key 'model_type' a second"):
        family(folder)


def test_a_config_that_is_too_large_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("disp_engine.models.checkpoint.LARGEST_JSON", 10)
    (tmp_path / "config.json").write_text('{"a": "bcdefgh"}')
    with pytest.raises(InvalidModelError, match=r"config\.json takes more than 10 bytes"):
        read_json(tmp_path / "config.json")


def rewrite(folder: Path, name: str, value: torch.Tensor) -> None:
    checkpoint = Checkpoint.from_folder(folder)
    tensors = {key: checkpoint.tensor(key) for key in checkpoint.entries}
    save_file(tensors | {name: value}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("{width}", 10**9),
        ("{layers}", 10**6),
        ("{vocabulary}", 10**30),
        ("image_grid_pinpoints", "(1x1),...,(99x99)"),
        ("image_grid_pinpoints", "(1x1),...,(100000x100000)"),
        ("image_grid_pinpoints", [[70 * 56 * 10**9, 70 * 56]]),
        ("architectures", [["LlavaLLaDAModelLM"]]),
    ],
)
def test_sizes_beyond_all_reason_are_refused_before_a_model_is_planned(
    folder: Path, key: str, value: object
) -> None:
    raw = json.loads((folder / "config.json").read_text())
    olmo = "d_model" in raw
    key = key.format(
        width="d_model" if olmo else "hidden_size",
        layers="n_layers" if olmo else "num_hidden_layers",
        vocabulary="embedding_size" if olmo else "vocab_size",
    )
    (folder / "config.json").write_text(json.dumps(raw | {key: value}))
    with pytest.raises(InvalidModelError, match=rf"config\.json: {key}"):
        load_model(folder)


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("text_config", "num_hidden_layers", 10**6, "num_hidden_layers must be at most 1024"),
        ("text_config", "hidden_size", 10**9, "hidden_size must be at most"),
        ("text_config", "per_layer_config", {"2": {"head_dim": 10**9}}, "2.head_dim must be at"),
        ("vision_config", "intermediate_size", 10**30, "intermediate_size must be at most"),
        ("text_config", "layer_types", "none", "layer_types"),
        ("vision_config", "pooling_kernel_size", 1, "pooling_kernel_size must be larger than 1"),
        ("text_config", "top_k_experts", 2**19, "experts"),
    ],
)
def test_a_gemma_config_that_no_model_can_have_is_refused(
    tmp_path: Path, part: str, key: str, value: object, message: str
) -> None:
    copy = gemma_folder(tmp_path / "model")
    raw = json.loads((copy / "config.json").read_text())
    raw[part][key] = value
    (copy / "config.json").write_text(json.dumps(raw))
    with pytest.raises(InvalidModelError, match=rf"config\.json: .*{message}"):
        load_model(copy)
