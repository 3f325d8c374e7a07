"""`/ui`: sign in, look, download. Nothing here changes a job."""

from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from api import downloads
from api.access import JobIdInPath
from api.gateway import AnyGateway
from api.jobs.service import artifact
from api.web import service, session
from api.web.export import csv_lines
from api.web.frameworks import FRAMEWORKS
from api.web.render import HEADERS, STATIC, STATIC_TYPES, page
from api.web.routes import PageRoute
from api.web.session import Visitor
from schemas.jobs import JobStatus
from storage.errors import NotFound
from storage.interfaces import Shown

router = APIRouter(include_in_schema=False, route_class=PageRoute)
LARGEST = 2**53
Position = Annotated[int, Path(ge=0, le=LARGEST)]
After = Annotated[int | None, Query(ge=0, le=LARGEST)]
FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}


@router.get("/")
def home() -> Response:
    """Go to the jobs."""
    return RedirectResponse(session.HOME, 303)


@router.get("/ui/static/{name}")
def static_file(name: str) -> Response:
    """Return one of the few files that pages load."""
    if name not in STATIC:
        raise NotFound(name)
    return Response(STATIC[name], headers=dict(HEADERS) | FOREVER, media_type=STATIC_TYPES[name])


@router.get("/ui/sign-in")
def sign_in_form(next: str = session.HOME) -> Response:
    """Show the form."""
    return page("sign_in.html", wanted=session.destination(next), refused=False)


@router.post("/ui/sign-in")
def sign_in(
    request: Request,
    gateway: AnyGateway,
    key: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = session.HOME,
) -> Response:
    """Begin a session with a key that may read."""
    token = key.strip()
    if session.from_elsewhere(request) or session.reader(gateway, token) is None:
        return page("sign_in.html", 403, wanted=session.destination(next), refused=True)
    return session.begin(request, token, next)


@router.post("/ui/sign-out")
def sign_out(request: Request) -> Response:
    """End the session, unless another site's page asks for it."""
    if session.from_elsewhere(request):
        return RedirectResponse(session.HOME, 303)
    return session.end()


@router.get("/ui/jobs")
def jobs(
    gateway: AnyGateway,
    tenant: Visitor,
    status: JobStatus | None = None,
    after: Annotated[str | None, Query(pattern=r"^job_[0-9a-f]{32}$")] = None,
) -> Response:
    """List jobs, newest first."""
    found = gateway.jobs.list_jobs(tenant, status=status, after=after, limit=25)
    return page("jobs.html", page=found, status=status, statuses=list(JobStatus))


@router.get("/ui/jobs/{job_id}")
def job(gateway: AnyGateway, tenant: Visitor, job_id: JobIdInPath) -> Response:
    """Show a job, which the page follows until it has ended."""
    return page("job.html", view=service.job_view(gateway, tenant, job_id))


@router.get("/ui/jobs/{job_id}/live")
def live_job(gateway: AnyGateway, tenant: Visitor, job_id: JobIdInPath) -> Response:
    """Return the part of a job's page that changes."""
    return page("_live.html", view=service.job_view(gateway, tenant, job_id))


@router.get("/ui/jobs/{job_id}/samples")
def samples(
    request: Request,
    gateway: AnyGateway,
    tenant: Visitor,
    job_id: JobIdInPath,
    shown: Shown = Shown.ALL,
    after: After = None,
) -> Response:
    """List samples, the most suspicious first; htmx asks for further rows alone."""
    entries, more = gateway.jobs.list_sample_entries(
        tenant, job_id, shown=shown, after=after, limit=service.ROWS
    )
    given = {"job_id": job_id, "entries": entries, "more": more, "shown": shown}
    if request.headers.get("hx-request") == "true":
        return page("_rows.html", **given)
    found = gateway.jobs.get_job(tenant, job_id)
    return page("samples.html", job=found, filters=list(Shown), **given)


@router.get("/ui/jobs/{job_id}/samples.csv")
def samples_csv(
    gateway: AnyGateway, tenant: Visitor, job_id: JobIdInPath, shown: Shown = Shown.ALL
) -> Response:
    """Download a list as CSV."""
    entries = service.all_entries(gateway, tenant, job_id, shown)
    name = f'attachment; filename="{job_id}-{shown.value}.csv"'
    headers = dict(HEADERS) | {"Content-Disposition": name}
    lines = csv_lines(entries)
    return StreamingResponse(lines, headers=headers, media_type="text/csv; charset=utf-8")


@router.get("/ui/jobs/{job_id}/samples/{position}")
def sample(
    gateway: AnyGateway, tenant: Visitor, job_id: JobIdInPath, position: Position
) -> Response:
    """Show one sample."""
    view = service.sample_view(gateway, tenant, job_id, position)
    verdict = gateway.jobs.get_job(tenant, job_id).result or {}
    return page("sample.html", job_id=job_id, view=view, verdict=verdict.get("verdict"))


@router.get("/ui/jobs/{job_id}/samples/{position}/picture")
def picture(
    gateway: AnyGateway, tenant: Visitor, job_id: JobIdInPath, position: Position
) -> Response:
    """Return a sample's small picture."""
    content, media_type = service.preview(gateway, tenant, job_id, position)
    return Response(content, headers=dict(HEADERS), media_type=media_type)


@router.get("/ui/jobs/{job_id}/report")
def report(gateway: AnyGateway, tenant: Visitor, job_id: JobIdInPath) -> Response:
    """Show the report."""
    found = service.report(gateway, tenant, job_id).model_dump(mode="json")
    pattern = service.has_artifact(gateway, tenant, job_id, "trigger.png")
    return page("report.html", job_id=job_id, report=found, pattern=pattern, frameworks=FRAMEWORKS)


@router.get("/ui/jobs/{job_id}/trigger.png")
def trigger(gateway: AnyGateway, tenant: Visitor, job_id: JobIdInPath) -> Response:
    """Return the recovered pattern."""
    item = artifact(gateway, tenant, job_id, "trigger.png")
    content = gateway.artifacts.get(item.key)
    return Response(content, headers=dict(HEADERS), media_type="image/png")


@router.get("/ui/jobs/{job_id}/files/{name}")
def download(
    request: Request, gateway: AnyGateway, tenant: Visitor, job_id: JobIdInPath, name: str
) -> Response:
    """Download an artifact."""
    item = artifact(gateway, tenant, job_id, name)
    return downloads.send(gateway.artifacts, item, request)
