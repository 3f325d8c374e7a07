"""What every checkpoint folder has in common."""

import json
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
