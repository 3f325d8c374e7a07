import base64
import json
import os
import shutil
import stat
import subprocess

import pytest

from api.signatures.service import Signer
from schemas.tasks import CPU_QUEUE, IO_QUEUE, QUEUE
from tests.deploy.names import assert_command_exists, secrets_of, unknown_names
from tests.deploy.tools import ROOT, program

OURS = {"prepare", "gateway", "worker-gpu", "worker-cpu", "worker-io"}
READERS = ("worker-gpu", "worker-cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that compose reads, with secrets made by the script that the README names."""
    folder = tmp_path_factory.mktemp("compose")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([folder / "deploy" / "make-secrets"], check=True)
    return folder


@pytest.fixture(scope="module")
def compose(folder):
    """The file as Docker Compose itself reads it, that is, checked against its specification."""
    command = [program("docker-compose"), "-f", "docker-compose.yml", "config", "--format", "json"]
    environment = os.environ | {"DOCKER_CONFIG": str(folder)}
    read = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert read.returncode == 0, read.stderr
    return json.loads(read.stdout)


def test_every_service_is_watched_and_hardened(compose):
    for name, service in compose["services"].items():
        assert service["healthcheck"].get("test") or name == "prepare", name
        assert service["read_only"] is True, name
        assert service["user"] not in ("", "root", "0", "0:0"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["tmpfs"], name
        assert "privileged" not in service, name


def test_commands_and_names_of_the_environment_exist_in_the_code(compose):
    for name in OURS:
        service = compose["services"][name]
        assert_command_exists(service["command"])
        assert unknown_names(service["environment"]) == set(), name


def test_secrets_come_as_files_and_never_as_values(compose, folder):
    values = {path.name: path.read_text() for path in (folder / "deploy" / "secrets").iterdir()}
    assert set(values) == set(compose["secrets"])
    text = json.dumps(compose)
    for name in ("postgres_password", "s3_secret_key", "s3_access_key", "signing_key"):
        assert values[name] not in text
    for name in OURS:
        service = compose["services"][name]
        files = [v for k, v in service["environment"].items() if k.endswith("_FILE")]
        assert {path.removeprefix("/run/secrets/") for path in files} == secrets_of(service)


def test_secrets_are_made_once_for_their_owner_alone_and_fit_together(folder):
    secrets = folder / "deploy" / "secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    subprocess.run([folder / "deploy" / "make-secrets"], check=True)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert before["postgres_password"] in before["database_url"]
    (identity,) = json.loads(before["s3_config"])["identities"]
    assert identity["credentials"] == [
        {"accessKey": before["s3_access_key"], "secretKey": before["s3_secret_key"]}
    ]
    assert all(len(before[name]) >= 20 for name in ("postgres_password", "s3_secret_key"))


def test_the_gateway_alone_holds_a_key_that_signs(compose, folder):
    key = (folder / "deploy" / "secrets" / "signing_key").read_text()
    assert len(base64.b64decode(Signer(key).public_key)) == 32
    services = compose["services"].items()
    assert [name for name, service in services if "signing_key" in secrets_of(service)] == [
        "gateway"
    ]


def test_who_runs_strangers_data_reaches_no_other_network(compose):
    services, networks = compose["services"], compose["networks"]
    assert networks["stores"]["internal"] is True
    for name in READERS:
        assert set(services[name]["networks"]) == {"stores"}, name
    outside = {name for name, service in services.items() if "outside" in service["networks"]}
    assert outside == {"worker-io"}
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"gateway", "seaweedfs"}
    for name, (port,) in published.items():
        assert port["host_ip"] == "127.0.0.1", name


def test_the_broker_keeps_its_log_and_evicts_nothing(compose):
    command = " ".join(compose["services"]["valkey"]["command"])
    for option in ("--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"):
        assert option in command


def test_jobs_begin_after_the_database_is_ready(compose):
    for name in OURS - {"prepare"}:
        depends = compose["services"][name]["depends_on"]
        assert depends["prepare"]["condition"] == "service_completed_successfully"


def test_a_worker_has_time_to_save_its_job(compose):
    for name in READERS:
        assert compose["services"][name]["stop_grace_period"] == "4m0s", name


def test_every_queue_is_served_by_somebody(compose):
    commands = [" ".join(compose["services"][name]["command"]) for name in OURS]
    served = {"disp worker": QUEUE} | {f"disp worker --queue {q}": q for q in (CPU_QUEUE, IO_QUEUE)}
    assert set(served) <= set(commands)
