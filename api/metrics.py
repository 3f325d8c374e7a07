"""`/metrics`, for whoever holds a key with the scope `metrics`."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from api.access import with_scope
from api.answers import refusals
from api.gateway import AnyGateway
from storage.interfaces import StatisticsStore

router = APIRouter(tags=["operation"])
Scraper = Annotated[str, Depends(with_scope("metrics"))]


class JobGauges(Collector):
    """Gauges of all jobs, from SQL at the moment of the scrape."""

    def __init__(self, store: StatisticsStore) -> None:
        """Ask `store`."""
        self._store = store

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Ask once and tell both families."""
        found = self._store.statistics()
        jobs = GaugeMetricFamily("disp_jobs", "Jobs in each status.", labels=["status"])
        for status, count in found.jobs.items():
            jobs.add_metric([status.value], float(count))
        ages = GaugeMetricFamily(
            "disp_queue_oldest_age_seconds",
            "For how long the oldest entry of a queue has waited.",
            labels=["queue"],
        )
        for queue, seconds in found.oldest_age_s.items():
            ages.add_metric([queue], seconds)
        return [jobs, ages]


@router.get("/metrics", response_class=Response, responses=refusals(401, 403, 429, 503))
def scrape(gateway: AnyGateway, _: Scraper) -> Response:
    """Return this process's counters and the gauges of all jobs, in Prometheus's text format."""
    gauges = CollectorRegistry()
    gauges.register(JobGauges(gateway.jobs))
    text = generate_latest(REGISTRY) + generate_latest(gauges)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
