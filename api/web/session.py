"""Who looks at a page: a session cookie that holds an API key.

The cookie is HttpOnly, SameSite=Strict and sent to `/ui` alone, where nothing but signing out can
be done; the API itself does not read it. It is the key itself, so that a revoked or rotated key
ends its sessions at once.
"""

import re
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse

from api.gateway import AnyGateway, Gateway
from storage.interfaces import ApiKey

COOKIE = "disp_session"
PATH = "/ui"
LASTS_S = 8 * 3600
OURS = re.compile(r"/ui/[A-Za-z0-9_/.?=&-]*")
HOME = "/ui/jobs"


class SignInNeeded(Exception):
    """Nobody has signed in, or whose key is no more."""


def visitor(request: Request, gateway: AnyGateway) -> str:
    """Return the tenant of whoever signed in; their key counts as one of the API's requests."""
    key = reader(gateway, request.cookies.get(COOKIE, ""))
    if key is None:
        raise SignInNeeded()
    gateway.rates.check(key.tenant)
    return key.tenant


Visitor = Annotated[str, Depends(visitor)]
"""The tenant of a signed-in visitor."""


def reader(gateway: Gateway, token: str) -> ApiKey | None:
    """Return the key if it may read."""
    key = gateway.jobs.authenticate(token) if token else None
    return key if key is not None and "read" in key.scopes else None


def begin(request: Request, token: str, wanted: str) -> RedirectResponse:
    """Set the cookie and go where the visitor wanted to."""
    response = RedirectResponse(destination(wanted), 303)
    response.set_cookie(
        COOKIE,
        token,
        max_age=LASTS_S,
        path=PATH,
        secure=_encrypted(request),
        httponly=True,
        samesite="strict",
    )
    return response


def end() -> RedirectResponse:
    """Take the cookie away."""
    response = RedirectResponse(f"{PATH}/sign-in", 303)
    response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="strict")
    return response


def sign_in_first(request: Request) -> RedirectResponse:
    """Go to the form, which comes back to this page."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    response = RedirectResponse(f"{PATH}/sign-in?next={quote(destination(wanted), safe='')}", 303)
    if request.headers.get("hx-request") == "true":
        response.headers["HX-Redirect"] = response.headers["Location"]
        response.status_code = 200  # htmx follows a 303 by itself and would show the form inside
    return response


def destination(wanted: str) -> str:
    """A page of ours, whatever a link asked for."""
    return wanted if OURS.fullmatch(wanted) and "//" not in wanted else HOME


def from_elsewhere(request: Request) -> bool:
    """Tell whether another site's page sent this form."""
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def _encrypted(request: Request) -> bool:
    """The cookie of an encrypted connection never travels over a plain one."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))
