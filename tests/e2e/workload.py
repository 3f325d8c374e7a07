"""A small job for the whole service, and what of its artifacts must not depend on luck."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from client.config import MODEL
from client.sdk import Client
from disp_engine.attacks.poison import PoisonedSet, build_demo
from schemas.files import FilePurpose
from schemas.requests import (
    DefenseJobCreate,
    DispHyperparameters,
    Evaluation,
    Method,
    SuccessMatcher,
)

COMPARED = ("purified_dataset.zip", "mm_projector.safetensors", "samples.jsonl")
QUICK = DispHyperparameters(epochs=2, retrain_epochs=1, batch_size=8, probes=2)


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of the artifacts that the same request with the same seed always gives."""

    files: tuple[tuple[str, str], ...]
    report_content: str


def build_data(folder: Path, *, samples: int = 32, test: int = 8, seed: int = 0) -> PoisonedSet:
    """A poisoned dataset that takes seconds."""
    return build_demo(folder, samples=samples, test=test, seed=seed)


def upload(client: Client, data: PoisonedSet, *, seed: int = 0) -> DefenseJobCreate:
    """Upload all three archives and make the request of them."""
    return DefenseJobCreate(
        model=MODEL,
        training_file=client.upload(data.training).id,
        evaluation=Evaluation(
            triggered_file=client.upload(data.triggered, FilePurpose.EVALUATION).id,
            clean_file=client.upload(data.clean, FilePurpose.EVALUATION).id,
            success=SuccessMatcher(phrases=list(data.phrases)),
        ),
        method=Method(hyperparameters=QUICK),
        seed=seed,
    )


def fingerprint(client: Client, job_id: str, folder: Path) -> Fingerprint:
    """Fetch everything and hash what has to be the same each time."""
    paths = {path.name: path for path in client.fetch(job_id, folder)}
    files = tuple((n, hashlib.sha256(paths[n].read_bytes()).hexdigest()) for n in COMPARED)
    return Fingerprint(files, client.report(job_id).content_sha256)
