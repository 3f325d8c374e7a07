"""The parts for a whole session of tests; each test gets a bucket or a database of its own."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.parts.disk import unsynced
from tests.parts.postgres import PostgresServer
from tests.parts.redis import redis_server
from tests.parts.swift import S3, SwiftServer


@pytest.fixture(scope="session", autouse=True)
def patient_disk() -> Iterator[None]:
    with unsynced():
        yield


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    server = SwiftServer(tmp_path_factory.mktemp("swift"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def s3(swift: SwiftServer) -> S3:
    return swift.create_bucket(f"test-{uuid4().hex}")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgresql_url(postgres: PostgresServer) -> str:
    return postgres.create_database()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url
