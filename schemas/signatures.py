"""A deployment's signature of a report."""

from typing import Literal

from pydantic import Field

from schemas.wire import Resource

CONTEXT = "disp-report-v1"


class ReportSignature(Resource):
    """Ed25519 over `signed_text` of the job and the report's bytes; keys are in base64.

    Whoever verifies must know the deployment's public key from elsewhere: the one that stands here
    only says which it was.
    """

    object: Literal["defense.job.report_signature"] = "defense.job.report_signature"
    algorithm: Literal["ed25519"] = "ed25519"
    job_id: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    public_key: str
    signature: str


class SigningKey(Resource):
    """The public half of the key by which this deployment signs."""

    object: Literal["signing_key"] = "signing_key"
    algorithm: Literal["ed25519"] = "ed25519"
    public_key: str


def signed_text(job_id: str, sha256: str) -> bytes:
    """What is signed: that this job's report has this sha256."""
    return f"{CONTEXT}\n{job_id}\n{sha256}\n".encode()
