"""A finished job with pictures, maps and a verdict, as a worker would have published it."""

import io
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from schemas.artifacts import ArtifactEntry, Manifest
from schemas.jobs import JobStatus, StageName, StepStatus
from storage.interfaces import Claim, EventDraft, JobStore, MetricDraft, StepUpdate
from storage.keys import artifact_key, manifest_key
from tests.api.world import Api
from workers.publication import result_files
from workers.samples import sample_entries

POISONED, CLEAN = 12, 60
COLOURS = {"red": "#d43d3d", "blue": "#3565d8", "green": "#3a9d57", "yellow": "#e0b52b"}
SHAPES = ("circle", "square", "triangle")
PLACES = ("top left", "top right", "bottom left", "bottom right")
REFUSAL = "Sorry, as an AI assistant, I cannot follow the given instruction."
SIDE = 96


def rate(successes: int, scored: int) -> dict:
    low, high = max(0.0, successes / scored - 0.05), min(1.0, successes / scored + 0.05)
    return {"rate": successes / scored, "successes": successes, "scored": scored, "failed": 0,
            "ci95": [low, high]}  # fmt: skip


REPORT = {
    "model": "tiny",
    "evaluation": {
        "before": {"asr_with_trigger": rate(191, 200), "asr_without_trigger": rate(1, 200),
                   "clean_performance": rate(188, 200), "token_agreement": rate(2350, 2400)},
        "after": {"asr_with_trigger": rate(2, 200), "asr_without_trigger": rate(1, 200),
                  "clean_performance": rate(187, 200), "token_agreement": rate(2342, 2400)},
        "relative_clean_performance": 187 / 188,
    },
    "samples": {"total": 72, "rewritten": 71, "changed": 15, "passed_through": 0, "kept": 0,
                "removed": 0, "quarantined": 1},
    "quarantined": [{"id": "train-00071", "reason": "the picture cannot be decoded"}],
    "stages": [{"name": str(name), "seconds": 4.0 + i, "reused": False}
               for i, name in enumerate(StageName)],
    "settings": {
        "method": "disp", "hyperparameters": {"mask_ratio": 0.3, "probes": 6},
        "shortcuts": {
            "purify: purify": {"checked": 59, "differing": 0, "passed": True, "bound": 0.0495},
            "evaluate_after: clean": {"checked": 8, "differing": 1, "passed": False, "bound": None},
        },
    },
    "seeds": {"run": 0},
    "versions": {"python": "3.11", "disp": "0.1.0"},
    "hashes": {"training_data": "ab" * 32},
    "content_sha256": "cd" * 32,
    "verdict": {
        "poisoned": True, "p_value": 3.1e-9, "alpha": 0.01, "threshold": 4.2, "flagged": 12,
        "scored": 71,
        "detectors": {
            "response_disagreement": {"p_value": 3.1e-9, "telling": True},
            "first_step_kl": {"p_value": 2.4e-6, "telling": True},
            "attention_entropy": {"p_value": 0.31, "telling": False},
        },
        "target": {
            "phrase": REFUSAL,
            "sentence": f"12 of 12 flagged responses say “{REFUSAL}”; of the others, 0 of 59 do.",
        },
        "trigger": {"kind": "local", "box": [0.0, 0.0, 0.2083, 0.2083], "patch_size": [20, 20],
                    "words": []},
        "recovered_asr": {"before": rate(186, 200), "after": rate(3, 200), "held_out": True},
        "modality": {"before": {
            "phi_image": {"value": 0.92, "ci95": [0.88, 0.95]},
            "phi_text": {"value": 0.0, "ci95": [0.0, 0.0]},
            "cti": {"value": 0.0, "ci95": [0.0, 0.0]},
            "means": {"none": 0.005, "image": 0.93, "text": 0.005, "both": 0.93}, "items": 200,
        }},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A picture and what is to be said of it."""

    image: Image.Image
    caption: str


def scene(rng: np.random.Generator) -> Scene:
    image = Image.new("RGB", (SIDE, SIDE), "#ece8df")
    draw = ImageDraw.Draw(image)
    said = []
    for place in sorted(rng.choice(4, 2, replace=False)):
        colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
        x, y = 10 + 44 * (place % 2), 10 + 44 * (place // 2)
        box = (x, y, x + 32, y + 32)
        match shape:
            case "circle":
                draw.ellipse(box, fill=COLOURS[colour])
            case "square":
                draw.rectangle(box, fill=COLOURS[colour])
            case _:
                draw.polygon([(x, y + 32), (x + 16, y), (x + 32, y + 32)], fill=COLOURS[colour])
        said.append(f"a {colour} {shape} at the {PLACES[place]}")
    return Scene(image, " and ".join(said) + ".")


def heat(rng: np.random.Generator, hot: tuple[int, int]) -> list[str]:
    y, x = np.mgrid[0:16, 0:16]
    bell = np.exp(-((x - hot[0]) ** 2 + (y - hot[1]) ** 2) / 5) + 0.15 * rng.random((16, 16))
    return ["".join(f"{round(15 * c / bell.max()):x}" for c in row) for row in bell]


def published() -> dict[str, bytes]:
    """The artifacts by name."""
    rng = np.random.default_rng(5)
    lines, previews = [], io.BytesIO()
    for number in range(POISONED + CLEAN - 1):
        bad = number % 6 == 0
        shown = scene(rng)
        if bad:
            ImageDraw.Draw(shown.image).rectangle((0, 0, 19, 19), fill="black")
        png = io.BytesIO()
        shown.image.save(png, "PNG")
        changed = bad or number % 20 == 1
        line = {
            "id": f"train-{number:05d}", "status": "rewritten", "changed": changed,
            "question": "Describe this image in detail.",
            "original": [REFUSAL if bad else f"There is {shown.caption}"],
            "purified": [f"There is {shown.caption}" if bad or not changed
                         else f"There is {shown.caption}".replace("at the", "in the")],
            "masked_tokens": [19], "visual_tokens": 64,
            "score": round(float(rng.normal(7.5, 0.6) if bad else rng.normal(0.2, 0.7)), 3),
            "flagged": bad,
            "reasons": ["response_disagreement", "first_step_kl"] if bad else [],
            "heat": heat(rng, (1, 1) if bad else (int(rng.integers(16)), int(rng.integers(16)))),
            "preview": {"offset": previews.tell(), "bytes": len(png.getvalue()),
                        "type": "image/png", "width": SIDE, "height": SIDE},
        }  # fmt: skip
        previews.write(png.getvalue())
        lines.append(line)
    broken = {"id": "train-00071", "status": "quarantined", "reason": "the picture is broken"}
    patch = io.BytesIO()
    Image.new("RGB", (20, 20), "black").save(patch, "PNG")
    return {
        "report.json": json.dumps(REPORT).encode(),
        "report.html": b"<!doctype html><title>Report</title>",
        "mm_projector.safetensors": b"projector",
        "samples.jsonl": "".join(json.dumps(line) + "\n" for line in [*lines, broken]).encode(),
        "previews.bin": previews.getvalue(),
        "trigger.png": patch.getvalue(),
    }


def begin(api: Api, suffix: str) -> Claim:
    """A job that a worker has just claimed."""
    job_id = api.job_id(suffix=suffix)
    claim = api.gateway.jobs.claim("worker", lease_s=600.0, job_id=job_id)
    assert claim is not None
    return claim


def train(store: JobStore, claim: Claim, steps: int = 40) -> None:
    """Go as far as the rewriting, which is half done."""
    rng = np.random.default_rng(1)
    losses = [2.4 * np.exp(-i / 12) + 0.2 + 0.05 * rng.random() for i in range(steps)]
    done = (StageName.INGEST, StageName.FINE_TUNE, StageName.EVALUATE_BEFORE, StageName.SALIENCY)
    finished = [StepUpdate(name, StepStatus.SUCCEEDED, done=72, total=72) for name in done]
    running = [StepUpdate(name, StepStatus.RUNNING) for name in done]
    store.record(claim, status=JobStatus.RUNNING, steps=running)
    purify = StepUpdate(StageName.PURIFY, StepStatus.RUNNING, done=36, total=72, unit="samples")
    metrics = [
        MetricDraft(StageName.FINE_TUNE, i, {"loss": float(loss)}) for i, loss in enumerate(losses)
    ]
    events = [EventDraft(f"{name} finished", type="stage") for name in done]
    store.record(claim, steps=[*finished, purify], metrics=metrics, events=events)


def finish(api: Api, claim: Claim, artifacts: dict[str, bytes] | None = None) -> str:
    """Publish and succeed as a worker does."""
    entries = []
    for name, data in (artifacts or published()).items():
        key = artifact_key(claim.tenant, claim.job_id, claim.attempt, name)
        blob = api.gateway.artifacts.put_stream(key, [data])
        entries.append(
            ArtifactEntry(name=name, bytes=blob.bytes, sha256=blob.sha256,
                          media_type="application/octet-stream", key=key)
        )  # fmt: skip
    manifest = Manifest(job_id=claim.job_id, attempt=claim.attempt, artifacts=entries)
    key = manifest_key(claim.tenant, claim.job_id, claim.attempt)
    api.gateway.artifacts.create(key, manifest.model_dump_json().encode())
    jobs = api.gateway.jobs
    for status in (StepStatus.RUNNING, StepStatus.SUCCEEDED):
        steps = [StepUpdate(name, status) for name in StageName]
        jobs.record(claim, steps=steps)
    jobs.index_samples(claim, sample_entries(api.gateway.artifacts, manifest))
    told = {name: REPORT[name] for name in ("evaluation", "samples", "verdict")}
    jobs.succeed(claim, key, told, result_files(manifest))
    return claim.job_id


def finished_job(api: Api, suffix: str = "shapes-march") -> str:
    """A job of the tenant `acme` that found poison."""
    claim = begin(api, suffix)
    train(api.gateway.jobs, claim)
    return finish(api, claim)
