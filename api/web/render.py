"""Templates, what they may call, and the headers of every page."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from api.web.detectors import meaning

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-store",
}
STATIC_TYPES: Mapping[str, str] = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "htmx.LICENSE.txt": "text/plain; charset=utf-8",
    "mark.svg": "image/svg+xml",
}
STATIC: Mapping[str, bytes] = {
    name: files("api.web").joinpath("static", name).read_bytes() for name in STATIC_TYPES
}


def page(template: str, code: int = 200, /, **given: Any) -> HTMLResponse:
    """Render a template; every value is escaped."""
    return HTMLResponse(environment.get_template(template).render(**given), code, dict(HEADERS))


def static_url(name: str) -> str:
    """Where a file is served; the address changes with its content."""
    return f"/ui/static/{name}?v={hashlib.sha256(STATIC[name]).hexdigest()[:12]}"


def moment(seconds: float | None) -> str:
    """A point in time for people, in UTC."""
    if seconds is None:
        return "–"
    return f"{datetime.fromtimestamp(seconds, UTC):%d %b %Y, %H:%M} UTC"


def clock(seconds: float) -> str:
    """The same to the second and without the year, for lists."""
    return f"{datetime.fromtimestamp(seconds, UTC):%d %b, %H:%M:%S}"


def iso(seconds: float) -> str:
    """The same for machines."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def span(seconds: float | None) -> str:
    """A length of time for people."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def words(name: str) -> str:
    """An identifier as words."""
    return name.replace("_", " ")


def rate(found: Mapping[str, Any] | None) -> str:
    """A rate with its counts and interval, or why there is none."""
    if found is None:
        return "not measured"
    failed = f", {found['failed']} failed" if found["failed"] else ""
    if found["rate"] is None:
        return f"nothing scored{failed}"
    counts = f"{found['successes']}/{found['scored']}"
    if found.get("ci95"):
        low, high = (100 * bound for bound in found["ci95"])
        counts += f", 95 % CI {low:.1f}–{high:.1f}"
    return f"{100 * found['rate']:.1f} % ({counts}{failed})"


def points(estimate: Mapping[str, Any]) -> str:
    """A share of success in points, with its interval."""
    low, high = (100 * bound for bound in estimate["ci95"])
    return f"{100 * estimate['value']:.1f} ({low:.1f} to {high:.1f})"


def chance(p: float) -> str:
    """A p-value for people."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def pretty(value: Any) -> str:
    """A value of the report as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


environment = Environment(
    loader=PackageLoader("api.web"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
environment.filters |= {
    function.__name__: function
    for function in (moment, clock, iso, span, words, rate, points, chance, pretty, meaning)
}
environment.globals["static"] = static_url
