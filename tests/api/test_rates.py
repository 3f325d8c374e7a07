"""Rates and quotas: what a tenant may ask for in a minute, and have unfinished at a time."""

import os
import shutil
import socket
import subprocess
import time

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.errors import RateLimited
from api.rates import open_rate_limit
from storage.interfaces import ModelRecord
from tests.api.world import Api, assert_problem

REDIS = shutil.which("redis-server")


@pytest.fixture
def frugal(settings):
    """A gateway with small limits."""
    limits = {"max_requests_per_minute": 9, "max_unfinished_jobs": 2}
    app = create_app(settings.model_copy(update=limits))
    with TestClient(app, raise_server_exceptions=False) as client:
        gateway = app.state.gateway
        gateway.jobs.register_model(ModelRecord("tiny", "llada_v", "r1", "/secret/path"))
        client.headers["Authorization"] = f"Bearer {gateway.jobs.issue_key('acme')}"
        yield Api(client, gateway)


@pytest.fixture
def redis_url(tmp_path):
    if REDIS is None:
        assert not os.environ.get("CI"), "redis-server is missing: apt-get install redis-server"
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [REDIS, "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not answers(port):
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def refused(limit, tenant):
    try:
        limit.check(tenant)
    except RateLimited as refusal:
        assert 1 <= int(refusal.headers["Retry-After"]) <= 60
        return True
    return False


def test_a_tenant_over_its_rate_is_told_how_long_to_wait_and_others_are_served(frugal):
    answers = [frugal.client.get("/v1/models") for _ in range(10)]
    assert [answer.status_code for answer in answers] == [200] * 9 + [429]
    assert_problem(answers[-1], 429, "rate_limited")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert frugal.client.get("/v1/models", headers=frugal.stranger()).status_code == 200
    assert frugal.client.get("/livez").status_code == 200


def test_a_tenant_has_only_so_many_unfinished_jobs(frugal):
    file_id = frugal.file_id()
    first, _ = (frugal.job_id(training_file=file_id) for _ in range(2))
    answer = frugal.create(training_file=file_id)
    assert_problem(answer, 429, "quota_exceeded")
    assert int(answer.headers["retry-after"]) > 0
    frugal.client.post(f"/v1/defense/jobs/{first}/cancel")
    assert frugal.create(training_file=file_id).status_code == 201


def test_a_limit_without_redis_counts_for_itself():
    for broker_url in (None, "amqp://localhost"):
        limit = open_rate_limit(2, broker_url)
        assert [refused(limit, "acme") for _ in range(3)] == [False, False, True]


def test_gateways_that_share_a_redis_share_their_counts(redis_url, monkeypatch):
    monkeypatch.setattr("api.rates.PATIENCE_S", 30.0)  # of a busy machine; not what is tested here
    one, other = (open_rate_limit(4, redis_url) for _ in range(2))
    assert [refused(limit, "acme") for limit in (one, other) * 3] == [False] * 4 + [True] * 2
    assert not refused(one, "globex")


def test_a_redis_that_is_away_costs_one_wait_and_no_request():
    limit = open_rate_limit(2, "redis://127.0.0.1:1/0")
    started = time.monotonic()
    assert [refused(limit, "acme") for _ in range(3)] == [False, False, True]
    assert time.monotonic() - started < 5
