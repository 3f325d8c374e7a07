"""The JSON files of a checkpoint folder, held in suspicion; no code of a folder is ever run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from disp_engine.errors import InvalidModelError, RemoteCodeRefused

LARGEST_JSON = 64 * 2**20
"""Bytes."""
LARGEST_CARD = 2**20
"""Bytes of a card and of a list of hashes."""
LARGEST_SIZE, MOST_LAYERS = 2**20, 1024
"""Of the numbers in a config, and of those that count layers."""

_REMOTE_CODE = {"auto_map", "trust_remote_code", "custom_pipelines"}
_HARMLESS_IMPLEMENTATION = {"_attn_implementation_autoset"}  # a flag, not a name of code


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or say which file is not one."""
    refuse_unreadable(path)
    return parse_object(path.read_bytes(), path.name)


def refuse_unreadable(path: Path, most: int | None = None) -> None:
    """Refuse a file that is not there, or larger than `most` bytes (those of any JSON file)."""
    if not path.is_file():
        raise InvalidModelError(f"{path.name} is missing from the model folder.")
    largest = LARGEST_JSON if most is None else most
    if path.stat().st_size > largest:
        raise InvalidModelError(f"{path.name} takes more than {largest} bytes.")


def read_card(path: Path) -> dict[str, Any]:
    """Read the card of a checkpoint, or say what is wrong with it."""
    refuse_unreadable(path, LARGEST_CARD)
    try:
        card = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidModelError(f"{path.name} is not YAML: {error}.") from error
    for key in ("defaults", "sha256"):
        if not isinstance(card, dict) or not isinstance(card.get(key, {}), dict):
            raise InvalidModelError(f"{path.name}: {key} must be a table.")
    return dict(card)


def refuse_remote_code(raw: object, file: str, at: str = "") -> None:
    """Refuse a config that asks, at any depth, for code from its folder or from a hub."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            implementation = str(key).startswith(("_attn_implementation", "_experts_impl"))
            if key in _REMOTE_CODE or (implementation and key not in _HARMLESS_IMPLEMENTATION):
                raise RemoteCodeRefused(
                    f"{file}: {at}{key} asks for remote code, which is never run; remove the key."
                )
            refuse_remote_code(value, file, f"{at}{key}.")
    elif isinstance(raw, list):
        for value in raw:
            refuse_remote_code(value, file, at)


def refuse_absurd(raw: object, file: str, at: str = "") -> None:
    """Refuse sizes, at any depth of a config, with which no model is built in its lifetime.

    Even without weights such a model would take hours and all memory to plan.
    """
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            if "rope" not in str(key):
                most = MOST_LAYERS if "layers" in str(key) else LARGEST_SIZE
                if type(value) is int and value > most:
                    raise InvalidModelError(f"{file}: {at}{key} must be at most {most}.")
                refuse_absurd(value, file, f"{at}{key}.")
    elif isinstance(raw, list):
        for value in raw:
            refuse_absurd(value, file, at)


def parse_object(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object of UTF-8 in which no key stands twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InvalidModelError(f"{what} has the key {key!r} a second time.")
            found[key] = value
        return found

    try:
        value = json.loads(text.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{what} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InvalidModelError(f"{what} must hold a JSON object.")
    return value
