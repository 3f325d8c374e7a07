"""The gateway's part of the environment, read once."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    """What the gateway needs to know; each field is an environment variable `DISP_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DISP_", extra="ignore")

    database_url: str
    artifacts_url: str
    broker_url: str | None = None
    max_upload_bytes: int = Field(default=512 * 1024 * 1024, ge=1)
    max_request_bytes: int = Field(default=1024 * 1024, ge=1)
    body_patience_s: float = Field(default=30.0, gt=0)
    upload_ttl_s: float = Field(default=86400.0, gt=0)
    max_requests_per_minute: int = Field(default=6000, ge=1)
    max_unfinished_jobs: int = Field(default=1000, ge=1)
    reconcile_s: float = Field(default=10.0, gt=0)
    max_losses: int = Field(default=3, ge=1)
    webhooks_allow_local: bool = False
    signing_key: str | None = None
    """Base64 of the 32 bytes of an Ed25519 key, by which reports are signed."""
