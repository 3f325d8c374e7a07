"""Puts every hostile input to a real service: `python -m tests.hostile --json FILE`.

Before them an honest job, after them another one, which quarantines what is bad in its data; the
artifacts of the first must then still be the same bytes.
"""

import argparse
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from client.config import SERVE_FILE, read_connection
from client.demo import running_service
from client.sdk import Client
from disp_engine.attacks.poison import PoisonedSet
from schemas.jobs import Job, JobStatus
from schemas.requests import DefenseJobCreate
from tests.e2e.workload import build_data, fingerprint, upload
from tests.hostile.corpus import INPUTS, MOST_MB, MOST_SECONDS, Row, run
from tests.hostile.memory import Memory
from tests.hostile.records import archive, record
from tests.hostile.service import Service

SETTINGS = {"DISP_POLL_S": "0.05", "DISP_BODY_PATIENCE_S": "2"}
BAD_RECORDS = [
    record("missing", image="images/nowhere.png"),
    record("empty", conversations=[]),
    record("broken", image="images/broken.png"),
]


def main() -> int:
    """Return 0 if every input was answered as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="where the result goes")
    parser.add_argument("--only", default="", help="inputs whose name has this in it")
    options = parser.parse_args()
    os.environ.update(SETTINGS)
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), options.only)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{len(result['inputs'])} inputs, {result['wrong']} wrong; at most "
        f"{result['most_seconds']:.1f} s (of {MOST_SECONDS:.0f}) and {result['most_mb']:.0f} MB "
        f"(of {MOST_MB:.0f}); the job after them: {result['jobs']['after']}; the artifacts of the "
        f"one before: {'unchanged' if result['artifacts_unchanged'] else 'CHANGED'}"
    )
    return 0 if not result["wrong"] and result["honest"] else 1


def measure(folder: Path, only: str) -> dict[str, Any]:
    """Run the corpus between two honest jobs."""
    inputs = [given for given in INPUTS if only in given.name]
    data = build_data(folder / "data")
    with running_service(folder / "service") as client:
        request = upload(client, data)
        job = client.wait(client.create_job(request).id)
        before = fingerprint(client, job.id, folder / "before")
        service = service_of(client, folder / "service")
        pid = json.loads((service.folder / SERVE_FILE).read_text())["pid"]
        rows = run(service, inputs, Memory(pid), folder, _say)
        unchanged = fingerprint(client, job.id, folder / "after") == before
        quarantining = _quarantine(client, request, data, folder)
    return {
        "inputs": [row.to_json() for row in rows],
        "wrong": sum(not row.right for row in rows),
        "most_seconds": max(row.seconds for row in rows),
        "most_mb": max(row.peak_mb for row in rows),
        "jobs": {"before": job.status, "after": quarantining.status},
        "quarantined": (quarantining.result or {}).get("samples", {}).get("quarantined"),
        "artifacts_unchanged": unchanged,
        "honest": unchanged and _quarantined_all(quarantining, data),
    }


def service_of(client: Client, folder: Path) -> Service:
    """The service that runs in a folder."""
    connection = read_connection(folder)
    return Service(client, connection.url, connection.api_key or "", folder)


def _quarantine(client: Client, request: DefenseJobCreate, data: PoisonedSet, folder: Path) -> Job:
    """The honest data and some that are not: the job goes on with the good samples."""
    with zipfile.ZipFile(data.training) as file:
        members = {name: file.read(name) for name in file.namelist()}
    (document,) = (name for name in members if name.endswith(".json"))
    records = json.loads(members[document]) + BAD_RECORDS
    members |= {document: json.dumps(records).encode(), "images/broken.png": b"no picture"}
    path = folder / "mixed.zip"
    path.write_bytes(archive(members))
    changes = {"training_file": client.upload(path).id, "validation": "quarantine"}
    return client.wait(client.create_job(request.model_copy(update=changes)).id)


def _quarantined_all(job: Job, data: PoisonedSet) -> bool:
    counts = (job.result or {}).get("samples", {})
    expected = (JobStatus.SUCCEEDED, data.samples + len(BAD_RECORDS), len(BAD_RECORDS))
    return (job.status, counts.get("total"), counts.get("quarantined")) == expected


def _say(row: Row) -> None:
    mark = "ok" if row.right else "WRONG"
    print(
        f"{mark:5} {row.name:36} {row.status!s:9} {row.code!s:22} "
        f"{row.seconds:6.2f} s {row.peak_mb:7.1f} MB",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
