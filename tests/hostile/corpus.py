"""The corpus, and how one input is put to a running service."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from tests.hostile.calls import CALLS, SLOW_CALLS
from tests.hostile.inputs import DataInput, Input
from tests.hostile.memory import Memory
from tests.hostile.pictures import PICTURES
from tests.hostile.records import RECORDS
from tests.hostile.service import Answer, Service, code_of
from tests.hostile.tars import TARS
from tests.hostile.weights import WEIGHTS_INPUTS, copied
from tests.hostile.zips import ZIPS

DATA: Sequence[DataInput] = (*ZIPS, *TARS, *RECORDS, *PICTURES)
INPUTS: Sequence[Input] = (*CALLS, *SLOW_CALLS, *DATA, *WEIGHTS_INPUTS)
MOST_SECONDS = 120.0
MOST_MB = 1500.0
"""Of the gateway, the worker, the engine and the process that decodes, together."""


@dataclass(frozen=True)
class Row:
    """What became of an input."""

    name: str
    status: int | str
    code: str | None
    expected_status: int | str
    expected_code: str | None
    seconds: float
    peak_mb: float

    @property
    def right(self) -> bool:
        """Whether it was answered as expected, and within the bounds."""
        told = (self.status, self.code) == (self.expected_status, self.expected_code)
        return told and self.seconds <= MOST_SECONDS and self.peak_mb <= MOST_MB

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def run(
    service: Service,
    inputs: Iterable[Input],
    memory: Memory,
    folder: Path,
    say: Callable[[Row], None],
) -> list[Row]:
    """Put inputs to the service, one after the other."""
    rows = []
    for given in inputs:
        content = given.make() if isinstance(given, DataInput) else b""
        began = time.monotonic()
        with memory.watched():
            if isinstance(given, DataInput):
                status, code = submit(service, given, content, folder)
            else:
                status, code = given.send(service)
        seconds = round(time.monotonic() - began, 3)
        row = Row(
            given.name, status, code, given.status, given.code, seconds, round(memory.peak_mb, 1)
        )
        rows.append(row)
        say(row)
    return rows


def submit(
    service: Service, given: DataInput, content: bytes, folder: Path
) -> Answer | tuple[str, str | None]:
    """Upload an archive and have a job read it; the status is the job's, if there is one."""
    status, body = service.form(content, f"{given.name}.zip")
    if status != 201:
        return status, code_of(body)
    fields: dict[str, object] = {"validation": given.validation}
    if given.model is not None:
        model = copied(folder / uuid4().hex, given.model)  # type: ignore[arg-type]
        fields["model"] = service.register(model)
    job = service.refused_job(_file_id(body), **fields)
    return str(job["status"]), job["error"]["code"] if job["error"] else None


def _file_id(body: bytes) -> str:
    return str(json.loads(body)["id"])
