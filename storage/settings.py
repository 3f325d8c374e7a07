"""How to reach an S3 service: the environment, read once when such a store is opened."""

from pathlib import Path
from typing import Self

from pydantic import SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class S3Settings(BaseSettings):
    """Each field is an environment variable `DISP_S3_<NAME>`.

    `endpoint` is left out for AWS itself. `public_endpoint` is where clients reach the same
    service when they cannot reach `endpoint`; presigned URLs name it. Without a key the usual
    sources of AWS credentials are asked. The secret may also be the content of a file.
    """

    model_config = SettingsConfigDict(env_prefix="DISP_S3_", extra="ignore")

    endpoint: str | None = None
    public_endpoint: str | None = None
    region: str = "us-east-1"
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    secret_access_key_file: Path | None = None

    @property
    def secret(self) -> str | None:
        """Return the secret access key."""
        if self.secret_access_key_file is not None:
            return self.secret_access_key_file.read_text().strip()
        return self.secret_access_key.get_secret_value() if self.secret_access_key else None

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> Self:
        if self.secret_access_key is not None and self.secret_access_key_file is not None:
            raise ValueError("give secret_access_key or secret_access_key_file, not both")
        if (self.access_key_id is None) != (self.secret is None):
            raise ValueError("access_key_id and its secret are given together or not at all")
        return self
