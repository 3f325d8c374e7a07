"""Signing with Ed25519; a deployment without a key signs nothing."""

import base64
import binascii

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.gateway import Gateway
from api.jobs.service import REPORT_JSON, artifact
from schemas.signatures import ReportSignature, SigningKey, signed_text
from storage.errors import NotFound

SEED_BYTES = 32


class BadSigningKey(ValueError):
    """DISP_SIGNING_KEY is not base64 of 32 bytes: make one with `openssl rand -base64 32`."""


class Signer:
    """The deployment's key."""

    def __init__(self, seed: str) -> None:
        """Take the 32 bytes in base64, or raise `BadSigningKey`."""
        try:
            raw = base64.b64decode(seed, validate=True)
        except binascii.Error as error:
            raise BadSigningKey(BadSigningKey.__doc__) from error
        if len(raw) != SEED_BYTES:
            raise BadSigningKey(BadSigningKey.__doc__)
        self._key = Ed25519PrivateKey.from_private_bytes(raw)

    @property
    def public_key(self) -> str:
        """The public half in base64."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def sign(self, job_id: str, sha256: str) -> ReportSignature:
        """Vouch for a job's report."""
        signature = base64.b64encode(self._key.sign(signed_text(job_id, sha256))).decode()
        return ReportSignature(
            job_id=job_id, sha256=sha256, public_key=self.public_key, signature=signature
        )


def sign_report(gateway: Gateway, tenant: str, job_id: str) -> ReportSignature:
    """Sign what the job has published; `NotFound` where the deployment has no key."""
    item = artifact(gateway, tenant, job_id, REPORT_JSON)
    return _signer(gateway).sign(job_id, item.sha256)


def signing_key(gateway: Gateway) -> SigningKey:
    """Return the public key, or raise `NotFound`."""
    return SigningKey(public_key=_signer(gateway).public_key)


def _signer(gateway: Gateway) -> Signer:
    if gateway.signer is None:
        raise NotFound("signing_key")
    return gateway.signer
