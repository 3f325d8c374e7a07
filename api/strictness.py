"""JSON bodies in which every key stands once and every number is one; others are no JSON here."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

REASONS: dict[type[Exception], str] = {
    UnicodeDecodeError: "not UTF-8",
    RecursionError: "nested too deep",
}


class StrictRoute(APIRoute):
    """A route that reads JSON strictly; FastAPI turns the decoder's error into the answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Hand on a request whose `json` is ours."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


class StrictRequest(Request):
    """A request of which only one reading is possible."""

    async def json(self) -> Any:
        """Return the body; raises `JSONDecodeError`."""
        body = await self.body()
        try:
            return json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
        except json.JSONDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            reason = REASONS.get(type(error), "a number too long")
            raise json.JSONDecodeError(reason, "", 0) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise json.JSONDecodeError(f"the key {key[:64]!r} is there twice", "", 0)
        found[key] = value
    return found


def _no_constant(text: str) -> float:
    raise json.JSONDecodeError(f"{text} is no number", "", 0)
