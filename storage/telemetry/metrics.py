"""Prometheus metrics: one set of names for every process; no job or tenant is ever a label.

A counter counts what its own process has done, so a sum over all processes is the truth. Gauges of
jobs come from SQL at each scrape and are the same wherever they are asked for: take their maximum.
"""

import os
from collections.abc import Iterable, Iterator

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from storage.telemetry.build import build_facts

disable_created_metrics()  # type: ignore[no-untyped-call]  # a time stamp beside each counter

MINUTE, HOUR = 60.0, 3600.0
STAGE_SECONDS = (0.1, 1, 5, 15, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, 12 * HOUR)

JOBS_CREATED = Counter("disp_jobs_created_total", "Jobs created.", ["method"])
JOBS_FINISHED = Counter(
    "disp_jobs_finished_total", "Jobs ended; the reason is an error code.", ["status", "reason"]
)
STAGE_DURATION = Histogram(
    "disp_job_stage_duration_seconds",
    "Wall time of stages that were computed, not reused.",
    ["stage"],
    buckets=STAGE_SECONDS,
)
LEASES_EXPIRED = Counter("disp_lease_expired_total", "Attempts whose worker was lost.")
HINTS_RESENT = Counter("disp_hints_resent_total", "Hints that the reconciler sent again.")
SAMPLES_PROCESSED = Counter(
    "disp_samples_processed_total", "Samples of succeeded jobs.", ["stage", "verdict"]
)
UPLOAD_BYTES = Counter("disp_upload_received_bytes_total", "Bytes of uploads that arrived.")
UPLOADS_REFUSED = Counter("disp_upload_refused_total", "Uploads refused, by error code.", ["code"])
WEBHOOK_DELIVERIES = Counter(
    "disp_webhook_deliveries_total", "Attempts to deliver a webhook.", ["outcome"]
)
BUILD_INFO = Gauge(
    "disp_build_info",
    "What runs here.",
    ["version", "torch", "cuda"],
    multiprocess_mode="max",
)


class GpuMemory(Collector):
    """`disp_gpu_memory_used_bytes` of every GPU that NVML shows; nothing where there is none."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Ask NVML; a machine without a driver has no such metric."""
        family = GaugeMetricFamily(
            "disp_gpu_memory_used_bytes", "Memory of a GPU in use.", labels=["gpu"]
        )
        for index, used in gpu_memory():
            family.add_metric([str(index)], float(used))
        return [family] if family.samples else []


def gpu_memory() -> Iterator[tuple[int, int]]:
    """Yield each GPU's index and the bytes in use on it; nothing without a driver or NVML."""
    try:
        import pynvml
    except ImportError:
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            yield index, int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    finally:
        pynvml.nvmlShutdown()


def tell_build() -> None:
    """Set `disp_build_info`; call it once, where a process starts."""
    facts = build_facts()
    BUILD_INFO.labels(facts.version, facts.torch, facts.cuda).set(1)


def serve_worker_metrics(port: int) -> int:
    """Serve a worker's metrics on a port of its own (0 takes a free one) and return the port.

    A Celery node's children end with their jobs; where `PROMETHEUS_MULTIPROC_DIR` names a folder
    (`disp worker` sees to that), what they counted is kept there and added up.
    """
    tell_build()
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(GpuMemory())
    server, _thread = start_http_server(port, registry=registry)
    return int(server.server_port)
