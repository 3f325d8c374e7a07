"""Names to the classes behind them; reading a table imports nothing heavy."""

import hashlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from disp_engine.errors import InvalidModelError, InvalidRequestError
from disp_engine.models.checkpoint import read_json, refuse_remote_code

if TYPE_CHECKING:
    import torch

    from disp_engine.attacks.interfaces import Target, Trigger
    from disp_engine.interfaces import DiffusionModel

BUILTIN = Path(__file__).parent / "builtin"
MODEL_FAMILIES = Path(__file__).parent / "models"

MODELS: Mapping[str, str] = {
    "DiffusionGemmaForBlockDiffusion": "disp_engine.models.diffusion_gemma:DiffusionGemma",
    "LlavaLLaDAModelLM": "disp_engine.models.llada_v:LladaV",
    "LlavaLladaForMaskedDiffusion": "disp_engine.models.lavida:Lavida",
}
"""Model families by the `architectures` entry of config.json."""

TRIGGERS: Mapping[str, str] = {
    "black_patch": "disp_engine.attacks.triggers.black_patch:BlackPatch",
}

TARGETS: Mapping[str, str] = {
    "content_insertion": "disp_engine.attacks.targets.content_insertion:ContentInsertion",
    "targeted_refusal": "disp_engine.attacks.targets.targeted_refusal:TargetedRefusal",
}


def resolve(target: str) -> Any:
    """Import what a table's `module:Class` names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def load_model(
    folder: Path,
    *,
    device: "torch.device | str" = "cpu",
    dtype: "torch.dtype | None" = None,
    options: Mapping[str, Any] | None = None,
) -> "DiffusionModel":
    """Load a checkpoint folder through the adapter of its family.

    `options` are the family's own settings, for families that have some.
    """
    adapter = family(folder)
    settings = {}
    if options:
        if not hasattr(adapter, "settings_type"):
            raise InvalidRequestError("model_options: this model family has none.")
        settings = {"settings": adapter.settings_type.of(options)}
    model: DiffusionModel = adapter.from_folder(folder, device=device, dtype=dtype, **settings)
    return model


def family(folder: Path) -> Any:
    """The adapter class of a checkpoint folder, none of whose configs asks for remote code."""
    for path in sorted(folder.glob("*config.json")):
        refuse_remote_code(read_json(path), path.name)
    names = read_json(folder / "config.json").get("architectures")
    for name in names if isinstance(names, list) else []:
        if name in MODELS:
            return resolve(MODELS[name])
    raise InvalidModelError(
        f"config.json: architectures {names!r} is not supported; known: {', '.join(MODELS)}."
    )


def trigger(name: str) -> "Trigger":
    """Build a trigger with its defaults."""
    found: Trigger = _named(TRIGGERS, "trigger", name)()
    return found


def target(name: str) -> "Target":
    """Build an attack target with its defaults."""
    found: Target = _named(TARGETS, "target", name)()
    return found


def builtin_models() -> list[dict[str, Any]]:
    """The checkpoints that ship with the package, as their cards tell of them."""
    found = []
    for path in sorted(BUILTIN.glob("*/card.yaml")):
        card = yaml.safe_load(path.read_text())
        kept = ("id", "family", "description", "defaults")
        revision = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(
            {key: card[key] for key in kept} | {"path": str(path.parent), "revision": revision}
        )
    return found


def card_defaults(folder: Path) -> dict[str, Any]:
    """Hyperparameters of the card beside a checkpoint, or else of its family's card."""
    path = folder / "card.yaml"
    if path.is_file():
        return dict(yaml.safe_load(path.read_text())["defaults"])
    module = family(folder).__module__.rpartition(".")[2]
    (card,) = yaml.safe_load((MODEL_FAMILIES / module / "cards.yaml").read_text())
    return dict(card["defaults"])


def _named(table: Mapping[str, str], noun: str, name: str) -> Any:
    if name not in table:
        raise InvalidRequestError(f"{noun} {name!r} is unknown; known: {', '.join(table)}.")
    return resolve(table[name])
