import os
import subprocess

import kubernetes_validate
import pytest
import yaml

from tests.deploy.names import assert_command_exists, unknown_names
from tests.deploy.tools import CHART, helm

KUBERNETES = "1.31"
FULL = {
    "broker.url": "redis://valkey.data:6379/0",
    "artifacts.endpoint": "http://seaweedfs.data:8333",
    "artifacts.publicEndpoint": "https://s3.example.org",
    "models.claim": "models",
    "telemetry.otlpEndpoint": "http://collector:4318",
    "worker.kueueQueue": "gpus",
    "secret.signing": "disp-signing",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("helm")
    program = helm(folder)
    home = {f"HELM_{name}_HOME": str(folder) for name in ("CACHE", "CONFIG", "DATA")}

    def run(*arguments, values=None):
        chosen = [f"--set={name}={value}" for name, value in (values or {}).items()]
        command = [program, *arguments, *chosen]
        return subprocess.run(command, env=os.environ | home, capture_output=True, text=True)

    return run


@pytest.fixture(scope="module")
def render(run):
    def render(values=None):
        ended = run("template", "release", str(CHART), values=values)
        assert ended.returncode == 0, ended.stderr
        documents = [document for document in yaml.safe_load_all(ended.stdout) if document]
        return {
            (d["kind"], d["metadata"]["name"].removeprefix("release-disp")): d for d in documents
        }

    return render


@pytest.fixture(scope="module")
def full(render):
    return render(FULL)


def pods(documents):
    for (kind, name), document in documents.items():
        spec = document.get("spec", {})
        if kind == "ScaledJob":
            yield name, spec["jobTargetRef"]["template"]
        elif kind in ("Deployment", "Job"):
            yield name, spec["template"]


def test_helms_own_linter_has_no_objection(run):
    ended = run("lint", "--strict", str(CHART), values=FULL)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("values", [{}, FULL, {"broker.inSecret": "true"}])
def test_what_is_rendered_is_what_kubernetes_takes(render, values):
    for document in render(values).values():
        if not document["apiVersion"].startswith("keda.sh"):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
    for _, template in pods(render(values)):
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_commands_and_names_of_the_environment_exist_in_the_code(full):
    for name, template in pods(full):
        (container,) = template["spec"]["containers"]
        assert_command_exists(container["command"])
        assert unknown_names(entry["name"] for entry in container["env"]) == set(), name


def test_every_pod_is_hardened_and_asks_for_what_it_needs(full):
    for name, template in pods(full):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["automountServiceAccountToken"] is False, name
        (container,) = spec["containers"]
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["requests"] and container["resources"]["limits"], name


def test_secrets_are_mounted_and_named_by_file(full):
    for name, template in pods(full):
        (container,) = template["spec"]["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment["DISP_DATABASE_URL_FILE"] == "/run/secrets/disp/database-url", name
        assert "DISP_DATABASE_URL" not in environment
        assert "DISP_S3_SECRET_ACCESS_KEY" not in environment


def test_the_gateway_alone_holds_the_key_that_signs(full, render):
    for name, template in pods(full):
        known = "disp-signing" in str(template) or "SIGNING_KEY" in str(template)
        assert known == (name == "-gateway"), name
    template = dict(pods(full))["-gateway"]["spec"]
    (container,) = template["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    (volume,) = [v for v in template["volumes"] if v["name"] == "signing"]
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == "signing"]
    assert volume["secret"]["secretName"] == "disp-signing"
    assert environment["DISP_SIGNING_KEY_FILE"] == f"{mount['mountPath']}/signing-key"
    assert "SIGNING_KEY" not in str(render())


def test_a_worker_is_one_pod_for_each_queued_row_and_ends_by_itself(full):
    job = full["ScaledJob", "-worker"]["spec"]
    (trigger,) = job["triggers"]
    assert trigger["type"] == "postgresql" and "status = 'queued'" in trigger["metadata"]["query"]
    assert job["jobTargetRef"]["backoffLimit"] == 0
    (container,) = job["jobTargetRef"]["template"]["spec"]["containers"]
    assert container["command"] == ["disp", "worker", "--once"]
    labels = full["ScaledJob", "-worker"]["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    (auth,) = full["TriggerAuthentication", "-jobs"]["spec"]["secretTargetRef"]
    assert auth == {"parameter": "connection", "name": "disp", "key": "keda-connection"}


def test_the_query_of_the_scaler_fits_the_tables(full, tmp_path):
    from sqlalchemy import text

    from storage.connect import open_job_store
    from storage.migrate import upgrade
    from storage.sql.engine import open_engine
    from tests.storage.world import add_job, register_tiny

    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    upgrade(url)
    store, engine = open_job_store(url), open_engine(url)
    register_tiny(store)
    add_job(store), add_job(store)
    store.claim("worker", lease_s=60)
    (trigger,) = full["ScaledJob", "-worker"]["spec"]["triggers"]
    with engine.connect() as connection:
        assert connection.scalar(text(trigger["metadata"]["query"])) == 1
    store.close()
    engine.dispose()


def egress_of(documents, component):
    return documents["NetworkPolicy", f"-{component}"]["spec"]["egress"]


def reaches_the_internet(rules):
    return any("ipBlock" in peer for rule in rules for peer in rule.get("to", [{"ipBlock": 1}]))


def test_the_engines_pod_reaches_names_and_stores_and_nothing_else(full, render):
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    dns, *stores = egress_of(full, "worker")
    assert {port["port"] for port in dns["ports"]} == {53}
    assert stores == values["networkPolicy"]["stores"]
    policy = full["NetworkPolicy", "-worker"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"] and policy["ingress"] == []
    selected = full["ScaledJob", "-worker"]["spec"]["jobTargetRef"]["template"]["metadata"]
    assert policy["podSelector"]["matchLabels"] == selected["labels"]


def test_only_the_sender_of_webhooks_reaches_the_internet(full, render):
    open_to = {
        component: reaches_the_internet(egress_of(full, component))
        for component in ("gateway", "worker", "reader", "webhooks")
    }
    assert open_to == {"gateway": False, "worker": False, "reader": False, "webhooks": True}
    assert full["Deployment", "-webhooks"]
    alone = render()
    assert ("Deployment", "-webhooks") not in alone
    assert reaches_the_internet(egress_of(alone, "gateway"))
    private = egress_of(full, "webhooks")[-1]["to"][0]["ipBlock"]["except"]
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(private)


def test_uploads_are_read_by_a_pod_of_their_own_with_and_without_a_broker(full, render):
    for documents in (full, render()):
        (container,) = documents["Deployment", "-reader"]["spec"]["template"]["spec"]["containers"]
        assert container["command"] == ["disp", "worker", "--queue", "disp.cpu"]
        assert container["image"].startswith("disp-reader:")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gateway.replicas", "0"),
        ("artifacts.url", "file:///data"),
        ("worker.scratch", "lots"),
        ("broker.url", "amqp://x"),
        ("no.such.value", "1"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_the_schema(run, name, value):
    ended = run("template", "release", str(CHART), values={name: value})
    assert ended.returncode != 0 and "schema" in ended.stderr


def test_a_gateway_is_never_without_all_its_pods(full):
    budget = full["PodDisruptionBudget", "-gateway"]["spec"]
    gateway = full["Deployment", "-gateway"]["spec"]
    assert budget["selector"] == gateway["selector"]
    assert 0 < budget["minAvailable"] < gateway["replicas"]
