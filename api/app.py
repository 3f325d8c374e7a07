"""The gateway's application: `uvicorn --factory api.app:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import Lifespan, Scope

from api import health
from api.answers import publish_problems
from api.correlation import RequestId
from api.errors import install_error_handlers
from api.events.endpoints import router as events
from api.files.endpoints import router as files
from api.fine_tuning.endpoints import router as fine_tuning
from api.gateway import Gateway
from api.jobs.endpoints import router as jobs
from api.keys.endpoints import router as keys
from api.limits import BodyLimit
from api.metrics import router as metrics
from api.models.endpoints import router as models
from api.queue import open_queue
from api.rates import open_rate_limit
from api.reconciler import Reconciler
from api.samples.endpoints import router as samples
from api.settings import GatewaySettings
from api.signatures.endpoints import router as signatures
from api.signatures.service import Signer
from api.uploads.endpoints import router as uploads
from api.web.endpoints import router as pages
from api.webhooks.endpoints import router as webhooks
from storage.connect import open_artifact_store, open_job_store
from storage.environment import read_secret_files
from storage.telemetry.build import build_facts
from storage.telemetry.logs import configure_logs
from storage.telemetry.metrics import tell_build
from storage.telemetry.traces import configure_traces
from storage.webhooks.egress import Egress

PROBES = frozenset({"/livez", "/readyz", "/metrics"})


def create_app(settings: GatewaySettings | None = None) -> FastAPI:
    """Build the application; without `settings` they come from the environment."""
    if settings is None:
        read_secret_files()
        settings = GatewaySettings()  # type: ignore[call-arg]  # the environment
    configure_logs()
    configure_traces("disp-gateway")
    tell_build()
    app = FastAPI(
        title="DiSP",
        version=build_facts().version,
        description="Purifies poisoned visual instruction datasets and backdoored projectors.",
        lifespan=_lifespan(settings),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"metrics": False, "logs": False, "exclude": _is_probe},
    )
    app.add_middleware(
        BodyLimit,
        max_upload_bytes=settings.max_upload_bytes,
        max_request_bytes=settings.max_request_bytes,
        patience_s=settings.body_patience_s,
    )
    app.add_middleware(RequestId)
    install_error_handlers(app)
    for router in (
        health.router,
        metrics,
        files,
        uploads,
        models,
        jobs,
        events,
        samples,
        fine_tuning,
        keys,
        webhooks,
        signatures,
        pages,
    ):
        app.include_router(router)
    publish_problems(app)
    return app


def _lifespan(settings: GatewaySettings) -> Lifespan[FastAPI]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        gateway = open_gateway(settings)
        reconciler = Reconciler(
            gateway,
            period_s=settings.reconcile_s,
            max_losses=settings.max_losses,
        )
        app.state.gateway = gateway
        app.state.artifact_probe = health.probe_of(gateway)
        reconciler.start()
        try:
            yield
        finally:
            reconciler.stop()
            gateway.jobs.close()

    return lifespan


def open_gateway(settings: GatewaySettings) -> Gateway:
    """Open the stores and the queue that `settings` name."""
    return Gateway(
        jobs=open_job_store(settings.database_url),
        artifacts=open_artifact_store(settings.artifacts_url),
        queue=open_queue(settings.broker_url),
        upload_ttl_s=settings.upload_ttl_s,
        egress=Egress(allow_local=settings.webhooks_allow_local),
        rates=open_rate_limit(settings.max_requests_per_minute, settings.broker_url),
        max_unfinished_jobs=settings.max_unfinished_jobs,
        signer=Signer(settings.signing_key) if settings.signing_key else None,
    )


def _is_probe(scope: Scope) -> bool:
    return scope["path"] in PROBES
