"""One job's purification by one worker and by two: `python -m benchmarks.shards --json FILE`.

Workers are processes with disks of their own and one thread of torch each; the second finds the
job by itself and its start counts. Purification is scoring and rewriting, from the beginning of
the first to the end of the second. Promised: two need at most 0.6 of one's time, and the bytes are
the same. Both forms take turns, and of each the quicker counts.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.host import running_host
from client.config import MODEL
from disp_engine.attacks.poison import build_demo
from schemas.jobs import Job, JobStatus, StageName
from schemas.requests import DefenseJobCreate, DispHyperparameters, Method

SHARE = 0.6
COMPARED = ("purified_dataset.zip", "mm_projector.safetensors", "samples.jsonl")
TUNING = {"epochs": 1, "retrain_epochs": 1, "batch_size": 8, "micro_batch": 8}


@dataclass(frozen=True)
class Run:
    """One job: seconds of its purification and the hashes of what must not depend on workers."""

    workers: int
    seconds: float
    hashes: dict[str, str]


@dataclass(frozen=True)
class Result:
    """All runs."""

    samples: int
    runs: Sequence[Run]

    @property
    def share(self) -> float:
        """Two workers' time, as a share of one's."""
        return self._best(2) / self._best(1)

    @property
    def identical(self) -> bool:
        """Whether all runs gave the same bytes."""
        return all(run.hashes == self.runs[0].hashes for run in self.runs)

    @property
    def holds(self) -> bool:
        """Whether all that was promised is so."""
        return self.identical and self.share <= SHARE

    def _best(self, workers: int) -> float:
        return min(run.seconds for run in self.runs if run.workers == workers)


def run(folder: Path, *, samples: int, rounds: int) -> Result:
    """Measure everything below `folder`."""
    data = build_demo(folder / "data", samples=samples, test=1, seed=0)
    runs = [
        _purify(folder / f"{workers}-workers-{number}", data.training, workers)
        for number in range(rounds)
        for workers in (1, 2)
    ]
    return Result(samples, runs)


def _purify(folder: Path, training: Path, workers: int) -> Run:
    with running_host(folder, runners=workers, threads=1) as client:
        request = DefenseJobCreate(
            model=MODEL,
            training_file=client.upload(training).id,
            method=Method(hyperparameters=DispHyperparameters(**TUNING)),
        )
        job = client.wait(client.create_job(request).id)
        if job.status is not JobStatus.SUCCEEDED:
            raise RuntimeError(f"the job {job.status}: {job.error}")
        entries = {entry.name: entry.sha256 for entry in client.artifacts(job.id).artifacts}
        return Run(workers, _purification_s(job), {name: entries[name] for name in COMPARED})


def _purification_s(job: Job) -> float:
    steps = {step.name: step for step in job.steps}
    began, ended = steps[StageName.SALIENCY].started_at, steps[StageName.PURIFY].finished_at
    assert began is not None and ended is not None
    return ended - began


def main() -> None:
    """Print the result as JSON; status 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), samples=options.samples, rounds=options.rounds)
    shown = asdict(result) | {"share": result.share, "identical": result.identical}
    text = json.dumps(shown | {"holds": result.holds}, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text)
    sys.exit(0 if result.holds else 1)


if __name__ == "__main__":
    main()
