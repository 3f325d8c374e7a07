import socket
import stat
from pathlib import Path

import pytest

from client.serve import CannotListen, DataFolder, prepare, serve
from storage.connect import open_job_store


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path)


@pytest.mark.parametrize("left", ["", "disp_of_another_database\n"])
def test_a_key_that_opens_nothing_is_replaced_and_a_good_one_kept(
    folder: DataFolder, left: str
) -> None:
    path = folder.root / "api_key"
    path.write_text(left)
    prepare(folder, lambda text: None)
    key = path.read_text().strip()
    store = open_job_store(folder.database_url)
    assert store.authenticate(key) is not None
    store.close()
    prepare(folder, lambda text: None)
    assert path.read_text().strip() == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "what? 100%41 #1")
    folder.root.mkdir()
    prepare(folder, lambda text: None)
    assert (folder.root / "disp.db").exists()


def test_a_busy_port_is_named_with_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"--port.*127.0.0.1:{port}"):
            serve(tmp_path, "127.0.0.1", port, lambda text: None)


def test_many_deaths_in_a_row_are_borne_unless_the_environment_says_otherwise(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISP_MAX_LOSSES", raising=False)
    assert folder.environment["DISP_MAX_LOSSES"] == "20"
    monkeypatch.setenv("DISP_MAX_LOSSES", "4")
    assert folder.environment["DISP_MAX_LOSSES"] == "4"


def test_half_written_files_are_swept_away_and_others_left(folder: DataFolder) -> None:
    staged = folder.root / "artifacts" / "staging" / "abc"
    part = folder.root / "work" / "acme" / "inputs" / ".abc.part"
    whole = part.with_name("abc.zip")
    for path in (staged, part, whole):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder.sweep()
    assert [path.exists() for path in (staged, part, whole)] == [False, False, True]
