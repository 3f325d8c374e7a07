"""Pages at 100,000 samples: `python -m benchmarks.pages --json FILE`.

A gateway process of its own; a tenant of a thousand jobs, one of them with so many samples. Every
page is asked for again and again by one signed-in visitor, deep ones too, over a connection that
stays open. Promised: each answers within 100 ms, by its 95th percentile. The gateway's processor
time is printed beside it, which a busy machine does not lengthen. `--database` names a PostgreSQL
database to use instead of SQLite; it must be empty.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.host import Gateway, running_gateway
from benchmarks.large_job import LargeJob, build
from client.config import MODEL
from storage.connect import open_artifact_store, open_job_store
from storage.interfaces import Shown

PROMISED_S = 0.100
SAMPLES, OTHERS, ROUNDS = 100_000, 1_000, 40
DEEP = 0.9
"""How far down the list the deep pages are."""


@dataclass(frozen=True)
class Answers:
    """Seconds of each answer, and the gateway's mean processor seconds for one."""

    seconds: Sequence[float]
    processor: float

    def quantile(self, share: float) -> float:
        """The time that so large a share of the answers did not exceed."""
        return sorted(self.seconds)[round(share * (len(self.seconds) - 1))]

    def to_json(self) -> dict[str, float]:
        """What is told of a page, in milliseconds."""
        found = {
            "median_ms": self.quantile(0.5),
            "p95_ms": self.quantile(0.95),
            "longest_ms": max(self.seconds),
            "processor_ms": self.processor,
        }
        return {name: round(1000 * seconds, 1) for name, seconds in found.items()}


@dataclass(frozen=True)
class Result:
    """The answers of every page."""

    samples: int
    jobs: int
    database: str
    pages: Mapping[str, Answers]

    @property
    def holds(self) -> bool:
        """Whether the promise was kept by every page."""
        return all(found.quantile(0.95) <= PROMISED_S for found in self.pages.values())

    def to_json(self) -> dict[str, object]:
        """The result without the single answers."""
        pages = {name: found.to_json() for name, found in self.pages.items()}
        return vars(self) | {"pages": pages, "holds": self.holds}


def run(folder: Path, *, samples: int, others: int, rounds: int, database: str | None) -> Result:
    """Fill the stores and measure."""
    with running_gateway(folder / "host", database) as gateway:
        url, artifacts = (
            gateway.environment[name] for name in ("DISP_DATABASE_URL", "DISP_ARTIFACTS_URL")
        )
        with closing(open_job_store(url)) as jobs:
            sizes = {"samples": samples, "others": others}
            job = build(jobs, open_artifact_store(artifacts), "default", MODEL, **sizes)
        with httpx2.Client(base_url=gateway.url, timeout=60.0) as visitor:
            _sign_in(visitor, gateway.api_key)
            pages = {
                name: _ask(gateway, visitor, address, rounds)
                for name, address in addresses(job).items()
            }
    return Result(samples, others + 1, url.partition(":")[0], pages)


def addresses(job: LargeJob) -> dict[str, str]:
    """Every page that reads what grows, by name."""
    base = f"/ui/jobs/{job.job_id}"
    deep = job.at(DEEP)
    found = {
        "jobs": "/ui/jobs",
        "jobs, deep": f"/ui/jobs?after={job.job_id}",
        "jobs, succeeded": "/ui/jobs?status=succeeded",
        "job": base,
        "job, live": f"{base}/live",
        "sample": f"{base}/samples/{job.at(0)}",
        "sample, deep": f"{base}/samples/{deep}",
        "picture": f"{base}/samples/{deep}/picture",
        "report": f"{base}/report",
    }
    for shown in Shown:
        found[f"samples, {shown}"] = f"{base}/samples?shown={shown}"
        found[f"samples, {shown}, deep"] = f"{base}/samples?shown={shown}&after={deep}"
    return found


def _sign_in(visitor: httpx2.Client, api_key: str) -> None:
    answer = visitor.post("/ui/sign-in", data={"key": api_key, "next": "/ui/jobs"})
    if answer.status_code != 303:
        raise RuntimeError(f"sign-in was answered with {answer.status_code}")


def _ask(gateway: Gateway, visitor: httpx2.Client, url: str, rounds: int) -> Answers:
    """Measure a page after a first answer that is not counted."""
    _answer(visitor, url)
    before = gateway.processor_s()
    seconds = [_answer(visitor, url) for _ in range(rounds)]
    return Answers(seconds, (gateway.processor_s() - before) / rounds)


def _answer(visitor: httpx2.Client, url: str) -> float:
    began = time.monotonic()
    answer = visitor.get(url)
    if answer.status_code != 200:
        raise RuntimeError(f"{url} was answered with {answer.status_code}")
    return time.monotonic() - began


def main() -> None:
    """Print the result as JSON; status 1 if the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--jobs", type=int, default=OTHERS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--database", help="as DISP_DATABASE_URL; it must be empty")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = {"samples": options.samples, "others": options.jobs, "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as name:
        result = run(Path(name), **sizes, database=options.database)
    text = json.dumps(result.to_json(), indent=2)
    print(text)
    if options.json:
        options.json.write_text(text)
    sys.exit(0 if result.holds else 1)


if __name__ == "__main__":
    main()
