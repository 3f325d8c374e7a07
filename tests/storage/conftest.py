"""SQLite always; PostgreSQL too when DISP_TEST_POSTGRESQL_URL names an empty database."""

import os

import pytest
from sqlalchemy import create_engine, text

from storage import migrate
from storage.connect import open_job_store
from tests.storage.world import TENANT, add_training_file, register_tiny

POSTGRESQL_URL = os.environ.get("DISP_TEST_POSTGRESQL_URL")


@pytest.fixture(params=["sqlite", *(["postgresql"] if POSTGRESQL_URL else [])])
def database(request, tmp_path):
    url = POSTGRESQL_URL if request.param == "postgresql" else f"sqlite:///{tmp_path}/jobs.sqlite"
    migrate.upgrade(url)
    yield url
    if request.param == "postgresql":
        forget(url)


@pytest.fixture
def store(database):
    store = open_job_store(database)
    register_tiny(store)
    yield store
    store.close()


@pytest.fixture
def training_file(store):
    return add_training_file(store, TENANT)


def forget(url):
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    engine.dispose()
