"""Checkpoint files to named tensors: safetensors only, every tensor accounted for."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from disp_engine.errors import InvalidModelError
from disp_engine.models.checkpoint import read_json

_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, one or those an index names."""
    if (folder / _INDEX).is_file():
        return _shards(folder)
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    refuse_pickle(next((p for p in sorted(folder.iterdir()) if p.suffix in _PICKLES), None))
    raise InvalidModelError(f"The model folder has neither {_WHOLE} nor {_INDEX}.")


def refuse_pickle(path: Path | None) -> None:
    """Refuse a file that runs code when it is read."""
    if path is not None and path.suffix in _PICKLES:
        raise InvalidModelError(
            f"{path.name} is a pickle, which can run code when it is read. Convert it: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')."
        )


def read_tensors(
    files: list[Path], rename: Callable[[str], str] = lambda name: name
) -> dict[str, Tensor]:
    """All tensors, under the names that `rename` gives them; finite, and none of them twice."""
    tensors: dict[str, Tensor] = {}
    for path in files:
        for name, tensor in _tensors(path):
            key = rename(name)
            if key in tensors:
                raise InvalidModelError(f"{path.name}: {name} is there a second time.")
            if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
                raise InvalidModelError(f"{path.name}: {name} holds values that are not finite.")
            tensors[key] = tensor
    return tensors


def assign(parts: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Give each part (by name prefix) its tensors; name what is missing, too many or ill-shaped.

    The parts may have been built on the `meta` device.
    """
    wanted = {
        prefix + name: value.shape
        for prefix, part in parts.items()
        for name, value in part.state_dict().items()
    }
    check_names(wanted, tensors)
    for prefix, part in parts.items():
        names = {name: tensors[prefix + name] for name in part.state_dict()}
        part.load_state_dict(names, assign=True)


def check_names(wanted: Mapping[str, torch.Size], tensors: Mapping[str, Tensor]) -> None:
    """Hold the tensors against the names and shapes a model needs."""
    for problem, names in (
        ("missing", wanted.keys() - tensors.keys()),
        ("unexpected", tensors.keys() - wanted.keys()),
    ):
        if names:
            shown = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
            raise InvalidModelError(f"The weights do not fit: {len(names)} {problem}: {shown}.")
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise InvalidModelError(
                f"{name} has shape {tuple(tensors[name].shape)} where {tuple(shape)} is needed."
            )


def fingerprint(files: list[Path], tensors: Mapping[str, Tensor], projector: str) -> str:
    """sha256 over small files and all tensors but those under `projector`, in a fixed order."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}:{path.stat().st_size}:".encode() + path.read_bytes())
    for name in sorted(name for name in tensors if not name.startswith(projector)):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shards(folder: Path) -> list[Path]:
    table = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise InvalidModelError(f"{_INDEX} has no weight_map of names to files.")
    files = [folder / name for name in sorted(set(table.values()))]
    for path in files:
        refuse_pickle(path)
        if path.parent != folder or path.suffix != ".safetensors" or not path.is_file():
            raise InvalidModelError(f"{_INDEX} names {path.name}, which is not a file beside it.")
    return files


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise InvalidModelError(f"{path.name} is not a safetensors file: {error}.") from error
