"""A real Chromium on a real gateway."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import _serve
from tests.api.live import listening
from tests.parts.process import find_binary
from tests.parts.sqlite import sqlite_database

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SHOTS = "DISP_TEST_SCREENSHOTS"
"""Where pictures of the pages are kept, if anywhere."""


@pytest.fixture
def settings(tmp_path):
    from api.settings import GatewaySettings

    url = sqlite_database(tmp_path / "jobs.sqlite")
    return GatewaySettings(database_url=url, artifacts_url=f"file://{tmp_path}/artifacts")


@pytest.fixture
def api(settings):
    with _serve(settings) as api:
        yield api


@pytest.fixture
def url(api) -> Iterator[str]:
    with listening(api.client.app) as url:
        yield url


@pytest.fixture(scope="package")
def playwright():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture
def browser(playwright, tmp_path):
    """A browser with an empty profile; it must not say a word on its console."""
    context = playwright.chromium.launch_persistent_context(
        str(tmp_path / "profile"),
        executable_path=find_binary("chromium", "chromium"),
        args=list(FLAGS),
        viewport={"width": 1280, "height": 900},
    )
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def said(browser) -> list[str]:
    """What any page's console or scripts complain about."""
    found: list[str] = []
    browser.on("console", lambda m: m.type in ("error", "warning") and found.append(m.text))
    browser.on("weberror", lambda e: found.append(str(e.error)))
    return found


@pytest.fixture
def shoot(tmp_path):
    """Keep a picture of a page; CI keeps the folder."""
    folder = Path(os.environ.get(SHOTS, tmp_path / "shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=folder / f"{name}.png", full_page=True)
