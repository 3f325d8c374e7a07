"""Which service to talk to: as said, as the environment says, or the nearest `disp serve`."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from client.errors import DispError

DATA_FOLDER = Path("disp-data")
SERVE_FILE = "serve.json"
KEY_FILE = "api_key"
MODEL = "disp-tiny-llada-v"


def state_folder() -> Path:
    """Where this user's unfinished business is remembered (XDG_STATE_HOME)."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "disp"


class NotConfigured(DispError):
    """No service known: give --url and --api-key (DISP_URL, DISP_API_KEY) or run `disp serve`."""

    def __str__(self) -> str:
        return str(type(self).__doc__)


class HalfConfigured(NotConfigured):
    """A URL and a key belong together: give both options, or both DISP_URL and DISP_API_KEY."""


class NoApiKey(NotConfigured):
    """The API key has characters that no API key has: copy it again, `disp_` and all."""


@dataclass(frozen=True)
class Connection:
    """Where a service is and what opens it."""

    url: str
    api_key: str


def find_connection(
    url: str | None = None, api_key: str | None = None, start: Path | None = None
) -> Connection:
    """Options first, then the environment, then `disp-data` in `start` or the folders above it.

    URL and key come from one of these: no key is sent to a service that it was not meant for.
    """
    local = _nearest(start or Path.cwd())
    environment = os.environ.get("DISP_URL"), os.environ.get("DISP_API_KEY")
    for said_url, said_key in ((url, api_key), environment):
        if said_url or said_key:
            return _complete(said_url, said_key, local)
    if local is None:
        raise NotConfigured
    return local


def _complete(url: str | None, api_key: str | None, local: Connection | None) -> Connection:
    """The connection that was said, or the local one if just its URL was."""
    if url and not api_key and local is not None and url.rstrip("/") == local.url:
        return local
    if not url or not api_key:
        raise HalfConfigured
    if not (api_key.isascii() and api_key.isprintable()):
        raise NoApiKey
    return Connection(url, api_key)


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
