"""Which service to talk to: as said, as the environment says, or the nearest `disp serve`."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from client.errors import DispError

DATA_FOLDER = Path("disp-data")
SERVE_FILE = "serve.json"
KEY_FILE = "api_key"


class NotConfigured(DispError):
    """No service known: give --url and --api-key (DISP_URL, DISP_API_KEY) or run `disp serve`."""

    def __str__(self) -> str:
        return str(type(self).__doc__)


@dataclass(frozen=True)
class Connection:
    """Where a service is and what opens it."""

    url: str
    api_key: str


def find_connection(
    url: str | None = None, api_key: str | None = None, start: Path | None = None
) -> Connection:
    """Options first, then the environment, then `disp-data` in `start` or the folders above it."""
    url, api_key = url or os.environ.get("DISP_URL"), api_key or os.environ.get("DISP_API_KEY")
    if url and api_key:
        return Connection(url, api_key)
    local = _nearest(start or Path.cwd())
    if local is None:
        raise NotConfigured
    return Connection(url or local.url, api_key or local.api_key)


def read_connection(data: Path) -> Connection:
    """What the `disp serve` of a data folder has left for its clients."""
    url: str = json.loads((data / SERVE_FILE).read_text())["url"]
    return Connection(url, (data / KEY_FILE).read_text().strip())


def _nearest(start: Path) -> Connection | None:
    for folder in (start, *start.parents):
        data = folder / DATA_FOLDER
        if (data / SERVE_FILE).is_file() and (data / KEY_FILE).is_file():
            return read_connection(data)
    return None
