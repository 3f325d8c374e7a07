"""Every test on SQLite and on a PostgreSQL database of its own."""

import pytest

from storage import migrate
from storage.connect import open_job_store
from tests.parts.sqlite import sqlite_database
from tests.storage.world import TENANT, add_training_file, register_tiny


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql_url")
    return f"sqlite:///{tmp_path}/jobs.sqlite"


@pytest.fixture
def database(empty_database, tmp_path):
    if empty_database.startswith("sqlite"):
        return sqlite_database(tmp_path / "jobs.sqlite")
    migrate.upgrade(empty_database)
    return empty_database


@pytest.fixture
def store(database):
    store = open_job_store(database)
    register_tiny(store)
    yield store
    store.close()


@pytest.fixture
def training_file(store):
    return add_training_file(store, TENANT)
