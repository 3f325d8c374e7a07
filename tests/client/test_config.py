import json
from pathlib import Path

import pytest

from client.config import Connection, NoApiKey, NotConfigured, find_connection


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISP_URL", raising=False)
    monkeypatch.delenv("DISP_API_KEY", raising=False)


def serve_file(folder: Path) -> None:
    (folder / "disp-data").mkdir(parents=True)
    (folder / "disp-data" / "serve.json").write_text(json.dumps({"url": "http://local:1"}))
    (folder / "disp-data" / "api_key").write_text("disp_local\n")


def test_options_outrank_the_environment_and_that_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_file(tmp_path)
    assert find_connection(start=tmp_path) == Connection("http://local:1", "disp_local")
    monkeypatch.setenv("DISP_URL", "http://env:1")
    monkeypatch.setenv("DISP_API_KEY", "disp_env")
    assert find_connection(start=tmp_path) == Connection("http://env:1", "disp_env")
    assert find_connection("http://x", "k", tmp_path) == Connection("http://x", "k")


def test_the_data_folder_of_a_folder_above_is_found(tmp_path: Path) -> None:
    serve_file(tmp_path)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_connection(start=below).url == "http://local:1"


def test_without_any_service_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="disp serve"):
        find_connection(start=tmp_path)


def test_the_local_key_goes_to_the_local_service_and_nowhere_else(tmp_path: Path) -> None:
    serve_file(tmp_path)
    local = Connection("http://local:1", "disp_local")
    assert find_connection("http://local:1/", start=tmp_path) == local
    with pytest.raises(NotConfigured, match="belong together"):
        find_connection("http://elsewhere:1", start=tmp_path)


def test_url_and_key_of_two_sources_are_not_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISP_URL", "http://env:1")
    monkeypatch.setenv("DISP_API_KEY", "disp_env")
    with pytest.raises(NotConfigured, match="belong together"):
        find_connection("http://x", start=tmp_path)
    with pytest.raises(NotConfigured, match="belong together"):
        find_connection(api_key="k", start=tmp_path)


@pytest.mark.parametrize("key", ["disp_ключ", "disp_a\nb"])
def test_a_key_that_no_header_can_carry_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(NoApiKey):
        find_connection("http://x", key, tmp_path)
