"""What goes wrong on a page is told on a page."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from api.errors import JobNotFinished, RateLimited
from api.web.render import page
from api.web.session import SignInNeeded, sign_in_first
from storage import errors as storage

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
NOT_FOUND = (storage.NotFound, storage.KeyRefused, RequestValidationError)


class PageRoute(APIRoute):
    """Answers refusals with pages; what nobody expected is the application's to answer."""

    def get_route_handler(self) -> Handler:
        """Wrap the route."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except SignInNeeded:
                return sign_in_first(request)
            except NOT_FOUND:
                return _message(404, "Not found", "There is no such page, job or sample.")
            except JobNotFinished:
                return _message(409, "Not yet", "The job has not succeeded: it has no results.")
            except RateLimited:
                return _message(429, "Too many requests", "Wait a minute and try again.")
            except storage.StoreAway:
                return _message(503, "Unavailable", "The database does not answer. Try again.")

        return answered


def _message(status: int, title: str, text: str) -> Response:
    return page("message.html", status, title=title, text=text)
