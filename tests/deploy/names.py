"""Which names of the environment and which commands the code knows."""

import os
import shlex
from collections.abc import Iterable, Mapping
from unittest import mock

from typer.main import get_command

from api.settings import GatewaySettings
from client.cli import app
from storage.settings import S3Settings
from workers.settings import WorkerSettings

SETTINGS = {
    f"{prefix}{name.upper()}"
    for prefix, settings in (
        ("DISP_", GatewaySettings),
        ("DISP_", WorkerSettings),
        ("DISP_S3_", S3Settings),
    )
    for name in settings.model_fields
}
FOREIGN = {
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "TMPDIR",
}


def unknown_names(environment: Iterable[str]) -> set[str]:
    """The names that nothing in this repository reads."""
    return {name.removesuffix("_FILE") for name in environment} - SETTINGS - FOREIGN


def assert_command_exists(command: list[str]) -> None:
    """Parse the command as the container would; nothing runs."""
    program, *arguments = command
    if program == "uvicorn":
        assert "api.app:create_app" in arguments and "--factory" in arguments
        return
    assert program == "disp", shlex.join(command)
    name, *options = arguments
    found = get_command(app).commands[name]  # type: ignore[attr-defined]
    with mock.patch.dict(os.environ, {"DISP_DATABASE_URL": "sqlite://"}):
        found.make_context(name, options)


def secrets_of(service: Mapping[str, object]) -> set[str]:
    """The secrets that are mounted into a compose service, by name."""
    return {entry["source"] for entry in service.get("secrets", [])}  # type: ignore[attr-defined]
