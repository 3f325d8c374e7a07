"""The environment, read once."""

from functools import lru_cache
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from storage.environment import read_secret_files


class WorkerSettings(BaseSettings):
    """What a worker needs to know; each field is an environment variable `DISP_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DISP_", extra="ignore")

    database_url: str
    artifacts_url: str
    broker_url: str | None = None
    work_dir: Path = Path("disp-data/work")
    lease_s: float = Field(default=60.0, gt=0)
    heartbeat_s: float = Field(default=15.0, gt=0)
    max_losses: int = Field(default=3, ge=1)
    max_faults: int = Field(default=3, ge=1)
    soft_shutdown_s: float = Field(default=120.0, gt=0)
    stop_grace_s: float = Field(default=60.0, ge=0)
    silence_s: float = Field(default=3600.0, gt=0)
    poll_s: float = Field(default=0.5, gt=0)
    reconcile_s: float = Field(default=10.0, gt=0)
    engine_threads: int | None = Field(default=None, ge=1)
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    webhooks_allow_local: bool = False

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease_s < 2 * self.heartbeat_s:
            raise ValueError("lease_s must be at least twice heartbeat_s")
        return self


@lru_cache(maxsize=1)
def worker_settings() -> WorkerSettings:
    """The settings of this process."""
    read_secret_files()
    return WorkerSettings()  # type: ignore[call-arg]  # the environment gives the rest
