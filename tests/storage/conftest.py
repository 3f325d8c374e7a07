import pytest

from storage import migrate
from storage.connect import open_job_store
from tests.storage.world import TENANT, add_training_file, register_tiny


@pytest.fixture
def database(tmp_path):
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    migrate.upgrade(url)
    return url


@pytest.fixture
def store(database):
    store = open_job_store(database)
    register_tiny(store)
    yield store
    store.close()


@pytest.fixture
def training_file(store):
    return add_training_file(store, TENANT)
