import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.files import FileStatus
from schemas.jobs import JobStatus
from tests.workers.conftest import TENANT, Bench
from workers.runner import Runner, RunnerAlreadyRunning, sole_owner
from workers.settings import WorkerSettings

Wait = Callable[[Callable[[], bool]], None]

RUN = """
import sys, threading
from dataclasses import replace
from pathlib import Path
from storage.connect import open_artifact_store, open_job_store
from workers.runner import Runner, sole_owner, stop_on_signals
from workers.settings import WorkerSettings
from workers.supervisor import Workplace

settings = WorkerSettings()
store = open_job_store(settings.database_url)
command = (sys.executable, sys.argv[1], sys.argv[2])
place = Workplace(store, open_artifact_store(settings.artifacts_url), settings, command)
with sole_owner(settings.work_dir) as owner:
    Runner(place, owner, stop_on_signals()).run()
"""
ENGINE = Path(__file__).with_name("scripted_engine.py")


def start_runner(settings: WorkerSettings, script: str) -> "subprocess.Popen[bytes]":
    given = settings.model_dump(mode="json", exclude_none=True)
    environment = {f"DISP_{name.upper()}": str(value) for name, value in given.items()}
    command = [sys.executable, "-c", RUN, str(ENGINE), script]
    return subprocess.Popen(command, env=os.environ | environment)


def engines_of(job_id: str) -> list[int]:
    """Live engine processes that work on the job."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if job_id.encode() in command and b"scripted_engine" in command:
            found.append(int(folder.name))
    return found


def test_a_work_folder_has_one_runner_at_a_time(tmp_path: Path) -> None:
    with sole_owner(tmp_path), pytest.raises(RunnerAlreadyRunning), sole_owner(tmp_path):
        pass


def test_a_work_folders_owner_keeps_its_name(tmp_path: Path) -> None:
    with sole_owner(tmp_path) as first:
        pass
    with sole_owner(tmp_path) as second:
        assert first == second
    with sole_owner(tmp_path / "other") as other:
        assert other != first


def test_a_runner_without_work_stops_when_asked(bench: Bench) -> None:
    stop = threading.Event()
    stop.set()
    Runner(bench.running("succeed"), "runner", stop).run()
    assert bench.job().status is JobStatus.QUEUED


def test_a_store_that_is_away_for_a_moment_does_not_end_the_runner(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    faults = [ConnectionError("away")]
    claim = type(bench.store).claim

    def sometimes(store, owner, **options):  # type: ignore[no-untyped-def]
        if faults:
            raise faults.pop()
        stop.set()
        return claim(store, owner, **options)

    monkeypatch.setattr(type(bench.store), "claim", sometimes)
    monkeypatch.setattr("workers.runner.PAUSE_AFTER_FAULT_S", 0.01)
    Runner(bench.running("succeed"), "runner", stop).run()
    assert not faults


def test_a_killed_runner_takes_its_engine_along_and_its_successor_takes_the_job_back_at_once(
    bench: Bench, settings: WorkerSettings, eventually: Wait
) -> None:
    patient = settings.model_copy(update={"lease_s": 600.0})
    runner = start_runner(patient, "work_until_asked")
    eventually(lambda: bench.job().status is JobStatus.RUNNING)
    assert len(engines_of(bench.job_id)) == 1

    runner.send_signal(signal.SIGKILL)
    runner.wait()
    eventually(lambda: not engines_of(bench.job_id))
    successor = start_runner(patient, "succeed")
    eventually(lambda: bench.job().status is JobStatus.SUCCEEDED)

    assert bench.job().attempt == 2
    successor.terminate()
    assert successor.wait(10) == 0


def test_a_file_is_read_while_a_long_job_is_at_work(
    bench: Bench, settings: WorkerSettings, eventually: Wait
) -> None:
    runner = start_runner(settings, "work_until_asked")
    (file_id,) = [file.id for file in bench.store.list_files(TENANT).data]
    eventually(lambda: bench.job().status is JobStatus.RUNNING)
    eventually(lambda: bench.store.get_file(TENANT, file_id).status is FileStatus.ERROR)
    assert bench.job().status is JobStatus.RUNNING
    runner.terminate()
    assert runner.wait(10) == 0


def test_a_runner_that_is_asked_to_stop_hands_its_job_back(
    bench: Bench, settings: WorkerSettings, eventually: Wait
) -> None:
    runner = start_runner(settings, "work_until_asked")
    eventually(lambda: bench.job().status is JobStatus.RUNNING)
    runner.terminate()
    assert runner.wait(10) == 0
    assert bench.job().status is JobStatus.QUEUED
    assert not engines_of(bench.job_id)
