import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client import cli
from storage.connect import open_job_store
from tests.parts.sqlite import sqlite_database

Keys = Callable[..., str]


@pytest.fixture
def database(tmp_path: Path) -> str:
    return sqlite_database(tmp_path / "disp.db")


@pytest.fixture
def keys(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Keys:
    """Run `disp keys …` and return what it prints."""

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["disp", "keys", *words])
        monkeypatch.setenv("DISP_DATABASE_URL", database)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    return run


def test_a_key_is_issued_rotated_and_revoked(keys: Keys, database: str) -> None:
    token = keys("issue", "--tenant", "acme", "--scope", "read", "--scope", "admin").strip()
    store = open_job_store(database)
    key = store.authenticate(token)
    assert key is not None and (key.tenant, key.scopes) == ("acme", ("read", "admin"))

    successor = json.loads(keys("rotate", key.id, "--grace", "0", "--json"))
    assert store.authenticate(token) is None
    assert successor["scopes"] == ["read", "admin"]
    assert store.authenticate(successor["key"]) is not None

    keys("revoke", successor["id"])
    assert store.authenticate(successor["key"]) is None
    store.close()


def test_the_list_tells_whose_keys_they_are_and_never_their_secrets(keys: Keys) -> None:
    token = keys("issue", "--tenant", "acme").strip()
    keys("issue", "--tenant", "globex")
    listed = json.loads(keys("list", "--tenant", "acme", "--json"))
    assert [(key["tenant"], key["scopes"]) for key in listed] == [("acme", ["read", "submit"])]
    shown = keys("list")
    assert len(shown.splitlines()) == 2 and "valid" in shown
    assert token[-43:] not in shown
