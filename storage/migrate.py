"""Bringing a database to this version's schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from storage.sql.backend import reachable
from storage.sql.engine import open_engine


def upgrade(url: str, revision: str = "head") -> None:
    """Run what is missing up to `revision` in one transaction; safe when several try at once."""
    engine = open_engine(url)
    try:
        with reachable(), engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(17476)"))
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        engine.dispose()
