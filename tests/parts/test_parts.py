from uuid import uuid4

import psycopg
import pytest
from botocore.exceptions import ClientError
from redis import Redis

from tests.parts.postgres import PostgresServer
from tests.parts.redis import RedisServer


def test_swift_creates_an_object_only_once_and_survives_sigkill(swift, s3):
    client = s3.client()
    client.put_object(Bucket=s3.bucket, Key="manifest", Body=b"first", IfNoneMatch="*")
    swift.kill()
    swift.start()
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=s3.bucket, Key="manifest", Body=b"second", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert client.get_object(Bucket=s3.bucket, Key="manifest")["Body"].read() == b"first"


def test_swift_refuses_a_wrong_secret(s3):
    stranger = type(s3)(s3.endpoint, s3.bucket, secret_access_key="wrong").client()
    with pytest.raises(ClientError) as refused:
        stranger.list_objects_v2(Bucket=s3.bucket)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_redis_that_was_killed_comes_back_empty_at_the_same_url(tmp_path):
    server = RedisServer(tmp_path)
    server.start()
    with Redis.from_url(server.url) as client:
        client.set("key", "value")
    server.kill()
    server.start()
    with Redis.from_url(server.url) as client:
        assert client.get("key") is None
    server.stop()


def test_postgresql_that_was_killed_keeps_what_was_committed(tmp_path):
    server = PostgresServer(tmp_path)
    try:
        server.start()
        url = server.create_database().replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept (id text)")
            connection.execute("INSERT INTO kept VALUES (%s)", [uuid4().hex])
        server.kill()
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1,)
    finally:
        server.remove()
