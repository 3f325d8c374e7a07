"""One small dataset and one running service for all tests of a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.demo import running_service
from client.sdk import Client
from disp_engine.attacks.poison import PoisonedSet
from tests.e2e.workload import build_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> PoisonedSet:
    return build_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def service_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="session")
def client(service_folder: Path) -> Iterator[Client]:
    with running_service(service_folder) as client:
        yield client
