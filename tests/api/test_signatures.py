import base64
import json

import pytest

from api.signatures.service import BadSigningKey, Signer
from client.commands.report import NotGenuine, verify
from schemas.signatures import ReportSignature
from tests.api.conftest import SEED
from tests.api.world import assert_problem

PUBLIC = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
"""Of RFC 8032's key generation for this seed, as OpenSSL computes it."""


def test_a_report_is_signed_by_the_deployments_key(signing_api):
    job_id = signing_api.finished_job()
    base = f"/v1/defense/jobs/{job_id}/report"
    report = signing_api.client.get(base).content
    signature = ReportSignature(**signing_api.client.get(f"{base}/signature").json())
    assert signing_api.client.get("/v1/signing_key").json()["public_key"] == PUBLIC
    verify(report, signature, PUBLIC)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r, s, k: (r + b" ", s, k), "bytes have changed"),
        (lambda r, s, k: (r, s.model_copy(update={"job_id": "job_other"}), k), "not signed this"),
        (lambda r, s, k: (r, s, Signer(base64.b64encode(b"x" * 32).decode()).public_key), PUBLIC),
        (lambda r, s, k: (r, s.model_copy(update={"signature": "!"}), k), "not signed this"),
        (lambda r, s, k: (r, s, "short"), "another key"),
    ],
)
def test_whatever_is_changed_is_not_genuine(change, reason):
    import hashlib

    report = json.dumps({"a": 1}).encode()
    signer = Signer(SEED)
    signature = signer.sign("job_1", hashlib.sha256(report).hexdigest())
    verify(report, signature, PUBLIC)
    with pytest.raises(NotGenuine, match=reason):
        verify(*change(report, signature, PUBLIC))


def test_a_deployment_without_a_key_signs_nothing(api):
    job_id = api.finished_job()
    assert_problem(api.client.get(f"/v1/defense/jobs/{job_id}/report/signature"), 404, "not_found")
    assert_problem(api.client.get("/v1/signing_key"), 404, "not_found")


@pytest.mark.parametrize("seed", ["", "not base64", base64.b64encode(b"short").decode()])
def test_a_key_that_is_none_is_refused_at_the_start(seed):
    with pytest.raises(BadSigningKey):
        Signer(seed)
