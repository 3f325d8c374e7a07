"""SQLite databases in this version's schema, copies of one that was migrated."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from storage.migrate import upgrade


def sqlite_database(path: Path) -> str:
    """Put an empty database at a path and return its URL."""
    path.write_bytes(_migrated())
    return f"sqlite:///{path}"


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.sqlite"
        upgrade(f"sqlite:///{path}")
        return path.read_bytes()
