"""Signatures of Standard Webhooks (https://www.standardwebhooks.com), HMAC-SHA256."""

import base64
import secrets
from datetime import UTC, datetime

from standardwebhooks import Webhook

from storage.interfaces import SigningSecrets

SECRET_BYTES = 32


def new_secret() -> str:
    """Return a fresh secret, `whsec_` and base64."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def signed_headers(
    keys: SigningSecrets, message_id: str, body: str, moment: datetime | None = None
) -> dict[str, str]:
    """Return the three headers; in a time of grace the signature is of both secrets."""
    moment = moment or datetime.now(UTC)
    signatures = [
        Webhook(secret).sign(message_id, moment, body)
        for secret in (keys.current, keys.previous)
        if secret is not None
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
