"""A small engine that speaks the protocol and fails in the way its first argument names.

`python scripted_engine.py SCRIPT SPEC.json`: a program of its own, so that signals, pipes and exit
statuses are the real ones.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

PROJECTOR = b"projector"
answers: Queue[bytes] = Queue()


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def leave_when_orphaned() -> None:
    def watch() -> None:
        held = b""
        while read := os.read(0, 1):  # not sys.stdin, whose lock would be held to the end
            held += read
            if read == b"\n":
                answers.put(held)
                held = b""
        os._exit(75)

    threading.Thread(target=watch, daemon=True).start()


def report(spec: dict[str, Any]) -> dict[str, Any]:
    measured = {"asr_with_trigger": {"rate": 0.5, "successes": 1, "scored": 2, "failed": 0}}
    return {
        "evaluation": {"before": measured, "after": measured},
        "samples": {
            "total": 1,
            "rewritten": 1,
            "passed_through": 0,
            "kept": 0,
            "removed": 0,
            "quarantined": 0,
        },
        "stages": [{"name": "purify", "seconds": 0.1, "reused": False}],
        "settings": spec["method"],
        "seeds": {"seed": spec["seed"]},
        "versions": {},
        "hashes": {},
        "content_sha256": "0" * 64,
    }


def write_outputs(spec: dict[str, Any]) -> None:
    out = Path(spec["out_dir"])
    if "purify" in spec["stages"]:
        (out / "purified_dataset.zip").write_bytes(Path(spec["training_file"]).read_bytes())
    if "retrain" in spec["stages"]:
        (out / "mm_projector.safetensors").write_bytes(PROJECTOR)
    (out / "report.json").write_text(json.dumps(report(spec)))
    (out / "report.html").write_text("<p>report</p>")
    sample = {"id": "a b/c", "status": "rewritten", "changed": True}
    (out / "samples.jsonl").write_text(json.dumps(sample) + "\n")


def ingest() -> None:
    say(type="stage", stage="ingest", status="running")
    say(type="progress", stage="ingest", done=4, total=4, unit="samples")
    counts = {"records": 4, "usable": 3, "repeated_ids": 1, "fault_count": 1}
    faults = [{"where": "data.json, line 2", "code": "invalid_dataset", "reason": "no text"}]
    say(type="validated", param="training_file", error=None, faults=faults, **counts)
    say(type="stage", stage="ingest", status="succeeded", seconds=0.5, reused=False)


def succeed(spec: dict[str, Any]) -> int:
    ingest()
    say(type="stage", stage="fine_tune", status="running")
    say(type="metric", stage="fine_tune", step=10, values={"loss": 0.5})
    say(type="message", level="warn", stage="fine_tune", text="a word of warning")
    say(type="stage", stage="fine_tune", status="succeeded", seconds=0.1, reused=True)
    write_outputs(spec)
    say(type="done")
    return 0


def crash(spec: dict[str, Any]) -> int:
    ingest()
    print("last words before the crash", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def crash_once(spec: dict[str, Any]) -> int:
    marker = Path(spec["work_dir"]) / "crashed"
    if marker.exists():
        return succeed(spec)
    marker.touch()
    return crash(spec)


def break_down(spec: dict[str, Any]) -> int:
    ingest()
    say(type="error", code="engine_error", message="the optimiser exploded")
    return 1


def refuse(spec: dict[str, Any]) -> int:
    say(type="stage", stage="ingest", status="running")
    say(type="error", code="invalid_dataset", message="no LLaVA JSON", param="training_file")
    return 2


def babble(spec: dict[str, Any]) -> int:
    print("Loading weights: 100%", flush=True)
    sys.stdout.buffer.write(b"\xff\xfe{not json\n" + b"x" * 3_000_000 + b"\n")
    say(type="stage", stage="no_such_stage", status="running")
    return succeed(spec)


def lie(spec: dict[str, Any]) -> int:
    ingest()
    say(type="done")
    return 0


def overdo(spec: dict[str, Any]) -> int:
    """Leave more than was asked for."""
    ingest()
    write_outputs(spec | {"stages": ["purify", "retrain"]})
    say(type="done")
    return 0


def leave_silently(spec: dict[str, Any]) -> int:
    ingest()
    write_outputs(spec)
    return 0


def work_until_asked(spec: dict[str, Any]) -> int:
    ingest()
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    say(type="stage", stage="purify", status="running")
    done = 0
    while not asked.wait(0.05):
        done += 1
        say(type="progress", stage="purify", done=done, total=10_000, unit="samples")
    return 75


def hang(spec: dict[str, Any]) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ingest()
    time.sleep(600)
    return 0


def leave_a_helper(spec: dict[str, Any]) -> int:
    """The helper inherits stdout and would keep the pipe open for ten minutes."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return succeed(spec)


def show_environment(spec: dict[str, Any]) -> int:
    say(type="message", level="info", text=json.dumps(dict(os.environ)))
    return succeed(spec)


def share(spec: dict[str, Any]) -> int:
    """Eight samples in micro-batches of two; it notes which of them were its own."""
    stages = Path(spec["work_dir"]) / "stages"
    source, folder = stages / f"tune-{'0' * 24}", stages / f"purify-{'1' * 24}"
    folder.mkdir(parents=True, exist_ok=True)
    if spec["role"] == "leads":
        ingest()
        source.mkdir(exist_ok=True)
        (source / "state.safetensors").write_bytes(PROJECTOR)
        (source / "COMPLETE").touch()
        say(type="stage", stage="purify", status="running")
        offered = {"source": source.name, "folders": [folder.name]}
        say(type="shards_offered", **offered, samples=8, cut=2)
    elif (source / "state.safetensors").read_bytes() != PROJECTOR:
        return 1
    while True:
        say(type="shard_wanted", folder=folder.name)
        granted = json.loads(answers.get())
        if granted is None:
            break
        time.sleep(0.2)
        (folder / f"{granted['first']:07d}.json").write_text(str(granted["first"]))
        with (Path(spec["work_dir"]) / "own").open("a") as own:
            own.write(f"{granted['first']}\n")
        say(type="shard_done", folder=folder.name, first=granted["first"], last=granted["last"])
    if spec["role"] == "leads":
        if sorted(path.read_text() for path in folder.iterdir()) != ["0", "2", "4", "6"]:
            return 1
        write_outputs(spec)
        say(type="done")
    return 0


SCRIPTS: dict[str, Callable[[dict[str, Any]], int]] = {
    function.__name__: function
    for function in (
        succeed,
        crash,
        crash_once,
        break_down,
        refuse,
        babble,
        lie,
        overdo,
        leave_silently,
        work_until_asked,
        hang,
        leave_a_helper,
        show_environment,
        share,
    )
}


if __name__ == "__main__":
    leave_when_orphaned()
    sys.exit(SCRIPTS[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text())))
