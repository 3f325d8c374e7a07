"""What every checkpoint folder has in common; nothing here imports torch."""

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from disp_engine.errors import InvalidModelError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or say which file is not one."""
    if not path.is_file():
        raise InvalidModelError(f"{path.name} is missing from the model folder.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidModelError(f"{path.name} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InvalidModelError(f"{path.name} must hold a JSON object.")
    return value


def only_known(raw: Mapping[str, Any], known: Set[str], file: str) -> None:
    """Refuse keys that ask for code, and keys of which nobody here knows what they change."""
    for key in raw:
        if key in {"auto_map", "trust_remote_code"}:
            raise InvalidModelError(f"{file}: {key} asks for remote code, which is never run.")
        if key not in known:
            raise InvalidModelError(f"{file}: key {key} is unknown; remove it if it has no effect.")
