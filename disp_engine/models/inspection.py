"""What a model folder holds and what a job on it takes, told without reading a weight."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from disp_engine.errors import InvalidModelError
from disp_engine.models.checkpoint import LARGEST_CARD, read_card, refuse_unreadable
from disp_engine.models.tensors import FLOATS, PICKLES, Checkpoint
from disp_engine.registry import family

SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Memory:
    """Bytes a job takes of the device, estimated from sizes; see `Blueprint` for the formulas.

    `weights` of the frozen parts; `training` of the projector in float32 with its gradient and
    both moments; `activations` of one sample of `positions` positions, kept for going backward;
    `features` of one picture at its largest, on disk and, while they are used, in memory.
    """

    weights: int
    training: int
    activations: int
    features: int
    positions: int


def value_bytes(dtype: str) -> int:
    """Bytes that a value of a type takes, named as safetensors does; float32's for no float."""
    return FLOATS.get(dtype, FLOATS["F32"]).itemsize


@dataclass(frozen=True)
class Blueprint:
    """A model as its config plans it: sizes, the tensors it needs, and what it will take."""

    sizes: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]
    memory: Memory


@runtime_checkable
class Family(Protocol):
    """What inspecting and exporting need of an adapter's class."""

    projector_prefix: str
    loading: str
    """One line by which the family's own tooling loads a projector of ours from `{path}`."""

    @classmethod
    def checkpoint(cls, folder: Path) -> Checkpoint:
        """The folder's weight files under the adapter's names."""
        ...

    @classmethod
    def blueprint(cls, folder: Path, dtype: str) -> Blueprint:
        """Sizes and needs, by the folder's config alone; `dtype` as safetensors names it."""
        ...

    @classmethod
    def check(cls, folder: Path) -> None:
        """Raise InvalidModelError unless config, tokenizer and headers fit one another."""
        ...


@dataclass(frozen=True)
class Inspection:
    """What `disp models inspect` says; `problems` is empty when a job can run."""

    family: str
    sizes: Mapping[str, Any]
    files: Mapping[str, int]
    dtypes: Mapping[str, int]
    parameters: int
    memory: Memory
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The inspection as plain values; sizes of files and memory in bytes."""
        return asdict(self)


def inspect_model(folder: Path) -> Inspection:
    """Read configs and headers; a folder whose config cannot be read raises InvalidModelError."""
    adapter: Family = family(folder)
    problems = list(_problems(adapter, folder))
    try:
        entries = list(adapter.checkpoint(folder).entries.values())
    except InvalidModelError:
        entries = []
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.dtype] = counts.get(entry.dtype, 0) + 1
    most = max(counts, key=lambda name: counts[name], default="BF16")
    plan = adapter.blueprint(folder, most)
    return Inspection(
        family=getattr(adapter, "__name__", str(adapter)),
        sizes=plan.sizes,
        files={path.name: path.stat().st_size for path in sorted({e.file for e in entries})},
        dtypes=counts,
        parameters=sum(math.prod(shape) for shape in plan.tensors.values()),
        memory=plan.memory,
        problems=tuple(problems),
    )


@dataclass(frozen=True)
class Verification:
    """What `disp models verify` says: every problem, and sha256 of every file that is used."""

    problems: tuple[str, ...]
    sha256: Mapping[str, str]
    ignored: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The verification as plain values."""
        return asdict(self) | {"ok": not self.problems}


def verify_model(folder: Path) -> Verification:
    """Check names, shapes, every value, and the hashes that a card or SHA256SUMS promises."""
    adapter: Family = family(folder)
    problems = list(_problems(adapter, folder))
    try:
        checkpoint = adapter.checkpoint(folder)
    except InvalidModelError:
        checkpoint = Checkpoint((), {})
    for name in checkpoint.entries:
        try:
            checkpoint.tensor(name)
        except InvalidModelError as error:
            problems.append(str(error))
    try:
        promises = promised_sha256(folder)
    except InvalidModelError as error:
        problems.append(str(error))
        promises = {}
    promised_files = {path for path in folder.iterdir() if path.is_file() and path.name in promises}
    used = sorted({*folder.glob("*.json"), *checkpoint.files, *promised_files})
    found = {path.name: sha256(path) for path in used}
    for name, promised in promises.items():
        if found.get(name) != promised:
            problems.append(f"{name}: sha256 is not the promised {promised}.")
    ignored = tuple(path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES)
    return Verification(tuple(problems), found, ignored)


def promised_sha256(folder: Path) -> dict[str, str]:
    """Hashes by file, as the folder's card.yaml or SHA256SUMS gives them."""
    if (folder / SUMS).is_file():
        return _sums(folder / SUMS)
    if (folder / "card.yaml").is_file():
        return dict(read_card(folder / "card.yaml").get("sha256", {}))
    return {}


def _sums(path: Path) -> dict[str, str]:
    refuse_unreadable(path, LARGEST_CARD)
    found = {}
    for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
        digest, _, name = line.partition(" ")
        if line and not name.strip():
            raise InvalidModelError(f"{path.name}: line {number} is no hash and name.")
        if line:
            found[name.strip().removeprefix("*")] = digest
    return found


def sha256(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _problems(adapter: Family, folder: Path) -> Iterator[str]:
    """The first reason for which the folder could not be loaded, if there is one."""
    try:
        adapter.check(folder)
    except InvalidModelError as error:
        yield str(error)
