"""Results on stdout, as lines for people or as JSON; everything else on stderr."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def print_result(content: dict[str, Any], as_json: bool) -> None:
    """A record as JSON, or one line for each of its fields."""
    if as_json:
        print_json(content)
        return
    for name, value in content.items():
        print(f"{name}: {value}")


def print_json(content: BaseModel | dict[str, Any] | list[Any]) -> None:
    """JSON on stdout."""
    plain = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
    print(json.dumps(plain, indent=2))


def print_paths(paths: Sequence[Path]) -> None:
    """One path on each line."""
    for path in paths:
        print(path)


def announce(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)
