"""Some of each kind of hostile input against the running service; the jobs of the tests beside it
run on the same service afterwards."""

import json
from pathlib import Path

from client.config import SERVE_FILE
from client.sdk import Client
from tests.hostile.__main__ import service_of
from tests.hostile.calls import CALLS
from tests.hostile.corpus import DATA, Row, run
from tests.hostile.memory import Memory
from tests.hostile.records import said

QUICK = {
    "zip_nested_zip", "zip_overlapping", "zip_symlink", "tar_gigabyte_of_pax", "data_pickle",
    "data_duplicate_key", "data_bidi", "image_pixel_bomb", "image_zip_behind_png",
    "image_garbage_for_rows",
}  # fmt: skip


def test_hostile_inputs_meet_the_refusal_that_is_meant_for_them(
    client: Client, service_folder: Path, tmp_path: Path
) -> None:
    service = service_of(client, service_folder)
    memory = Memory(json.loads((service_folder / SERVE_FILE).read_text())["pid"])
    some = [given for given in DATA if given.name in QUICK]
    assert len(some) == len(QUICK)
    rows: list[Row] = run(service, [*CALLS, *some], memory, tmp_path, lambda row: None)
    assert [row for row in rows if not row.right] == []
    assert max(row.peak_mb for row in rows) > 50


def test_a_refused_dataset_tells_each_fault_on_the_wire(
    client: Client, service_folder: Path
) -> None:
    given = next(each for each in DATA if each.name == "data_id_twice")
    service = service_of(client, service_folder)
    job = client.job(service.refused_job(service.upload(given.make()))["id"])
    assert job.error is not None and job.validation == "strict"
    (fault,) = job.error.faults
    assert (fault.where, fault.code) == ("data.json, line 1, record 1", "invalid_dataset")
    assert job.error.param == "training_file"


def test_logs_hold_neither_what_a_dataset_says_nor_what_opens_the_service(
    client: Client, service_folder: Path
) -> None:
    service = service_of(client, service_folder)
    text = "words-that-nobody-else-would-write"
    service.refused_job(service.upload(said(f"{text}<image>", f"{text}\u202e")))
    logs = [*service_folder.glob("logs/*"), *service_folder.glob("work/**/engine.log")]
    assert len(logs) >= 3
    for path in logs:
        content = path.read_text(errors="replace")
        assert text not in content and service.key not in content, path
