"""Checkpoint folders that should run code, or compute with what is no number."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from disp_engine.registry import BUILTIN
from tests.hostile.inputs import DataInput
from tests.hostile.zips import good_zip

TINY = BUILTIN / "disp-tiny-llada-v"
WEIGHTS = "model.safetensors"
MODEL, CODE, UNSAFE = "invalid_model", "remote_code_refused", "unsafe_format"


def edited(file: str = "config.json", **keys: Any) -> Callable[[Path], None]:
    """Keys added to a file of JSON."""

    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return change


def replaced(content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(content)

    return change


def only_a_pickle(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps({}))

    return change


def bytes_behind(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"more")


def name_twice(folder: Path) -> None:
    """The header's first name once more; the library takes the last."""
    content = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].decode().rstrip()
    name = next(key for key in json.loads(header) if key != "__metadata__")
    again = json.dumps({name: json.loads(header)[name]})[1:-1]
    header = header[:-1] + ", " + again + "}"
    (folder / WEIGHTS).write_bytes(
        len(header).to_bytes(8, "little") + header.encode() + content[8 + length :]
    )


def first_tensor(**facts: Any) -> Callable[[Path], None]:
    """The header tells other facts about its first tensor; `name` is one of them."""

    def change(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        first = next(key for key in header if key != "__metadata__")
        told = header.pop(first) | facts
        header[told.pop("name", first)] = told
        text = json.dumps(header).encode()
        body = content[8 + length :]
        (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + body)

    return change


def not_a_number(folder: Path) -> None:
    """All of the last tensor's bytes set: NaN in every format."""
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(-64, 2)
        file.write(b"\xff" * 64)


def copied(folder: Path, change: Callable[[Path], None]) -> Path:
    """The built-in checkpoint with a change."""
    shutil.copytree(TINY, folder)
    change(folder)
    return folder


_INPUTS: list[tuple[str, Callable[[Path], None], str]] = [
    ("auto_map", edited(auto_map={"AutoModel": "evil.Model"}), CODE),
    ("trust_remote_code", edited(trust_remote_code=True), CODE),
    ("attention_from_a_hub", edited(_attn_implementation_internal="evil/kernel"), CODE),
    ("nested_code", edited(text_config={"auto_map": {"AutoModel": "evil.Model"}}), CODE),
    ("unknown_architecture", edited(architectures=["../../evil"]), MODEL),
    ("code_in_the_tokenizer", edited("tokenizer_config.json", auto_map={"x": "evil.T"}), CODE),
    *(
        (f"pickle_{name.rpartition('.')[2]}", only_a_pickle(name), UNSAFE)
        for name in ("pytorch_model.bin", "model.pt", "model.pth", "model.ckpt")
    ),
    ("pickle_renamed", replaced(pickle.dumps({"x": [1.0] * 100})), UNSAFE),
    ("zip_renamed", replaced(b"PK\3\4" + b"\xff" * 100), UNSAFE),
    ("seven_zip_renamed", replaced(b"7z\xbc\xaf\x27\x1c" + bytes(100)), UNSAFE),
    ("endless_header", replaced((2**62).to_bytes(8, "little") + b"{}"), MODEL),
    ("bytes_behind", bytes_behind, MODEL),
    ("name_twice", name_twice, MODEL),
    ("not_a_number", not_a_number, MODEL),
    ("overlapping", first_tensor(data_offsets=[4, 8], shape=[1], dtype="F32"), MODEL),
    ("another_name", first_tensor(name="evil.weight"), MODEL),
    ("another_shape", first_tensor(shape=[1, 1]), MODEL),
    ("another_type", first_tensor(dtype="I8"), MODEL),
    ("impossible_type", first_tensor(dtype="F4096"), MODEL),
]
WEIGHTS_INPUTS = [
    DataInput(f"weights_{name}", good_zip, code, model=change) for name, change, code in _INPUTS
]
