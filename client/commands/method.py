"""What `submit` and `purify` are told of a defence and of an attack's success."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from client.commands.exits import USAGE, leave
from schemas.requests import AnyMethod


def build_method(
    name: str,
    settings: Sequence[str] | None,
    poisoned: Path | None,
    mask_ratio: float | None,
    masking: str | None,
    epochs: float | None,
) -> AnyMethod:
    """The method with only those settings that were given."""
    given: dict[str, Any] = {"mask_ratio": mask_ratio, "masking": masking, "epochs": epochs}
    known = {key: value for key, value in given.items() if value is not None}
    known |= read_options(settings)
    if poisoned is not None:
        known["poisoned_ids"] = sorted(json.loads(poisoned.read_bytes())["poisoned"])
    method: AnyMethod = TypeAdapter(AnyMethod).validate_python(
        {"type": name, "hyperparameters": known}
    )
    return method


def all_phrases(
    phrases: Sequence[str] | None, preset: str | None, triggered: Path | str | None
) -> list[str]:
    """The given phrases and the preset's; a triggered set needs some, and they need it."""
    from disp_engine.metrics.success import KEYWORDS

    if preset is not None and preset not in KEYWORDS:
        leave(f"--preset {preset} is unknown; known: {', '.join(KEYWORDS)}", USAGE)
    found = [*(phrases or ()), *(KEYWORDS[preset] if preset else ())]
    if (triggered is None) != (not found):
        leave("--triggered and --phrase or --preset are given together or not at all", USAGE)
    return found


def read_options(given: Sequence[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` pairs; a value that is JSON is read as such, any other is a text."""
    found: dict[str, Any] = {}
    for pair in given or ():
        name, equals, text = pair.partition("=")
        if not equals:
            leave(f"{pair}: NAME=VALUE is expected", USAGE)
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found
