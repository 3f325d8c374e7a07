import os
import subprocess
import sys
from importlib.metadata import version

from storage.telemetry.build import build_facts
from storage.telemetry.metrics import gpu_memory

SERVE = """
import sys, urllib.request
from storage.telemetry.metrics import LEASES_EXPIRED, serve_worker_metrics
port = serve_worker_metrics(0)
LEASES_EXPIRED.inc(3)
sys.stdout.write(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
"""
CHILD = (
    "from storage.telemetry.metrics import LEASES_EXPIRED as c; c.inc(2); import os; os._exit(0)"
)


def run(code: str, **environment: str) -> str:
    given = os.environ | environment
    ended = subprocess.run(
        [sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True
    )
    return ended.stdout


def test_a_worker_serves_its_metrics_on_a_port_of_its_own() -> None:
    text = run(SERVE)
    assert "disp_lease_expired_total 3.0" in text
    assert f'disp_build_info{{cuda="",torch="{version("torch")}"' in text


def test_what_ended_children_counted_is_added_up(tmp_path) -> None:
    folder = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        run(CHILD, **folder)
    assert "disp_lease_expired_total 7.0" in run(SERVE, **folder)


def test_versions_are_told_without_importing_torch() -> None:
    code = "import sys; from storage.telemetry.build import build_facts; f = build_facts(); "
    code += "print(f.torch, 'torch' in sys.modules)"
    assert run(code).split() == [version("torch"), "False"]
    assert build_facts().version == version("disp")


def test_a_machine_without_a_gpu_has_no_gpu_metric() -> None:
    import torch

    assert len(list(gpu_memory())) == torch.cuda.device_count()
