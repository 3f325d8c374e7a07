"""The guard server's application: `/v1/chat/completions` with a verdict on each answer."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from disp_engine.errors import EngineError, InvalidRequestError, SampleError
from disp_engine.guards.guard import Guard, Guarded, Piece, Verdict
from schemas.chat import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    GuardVerdict,
    MaskedRegion,
    Said,
    Usage,
)
from workers.guard.desk import Desk, Opening, Stream
from workers.guard.questions import question_of

LARGEST_REQUEST = 32 * 2**20
"""Bytes."""


@dataclass(frozen=True)
class Served:
    """What is served: whose answers, under which guard, of at most how many tokens."""

    model: str
    guard: str
    longest: int

    def length(self, request: ChatRequest) -> int:
        """Most tokens of an answer to a request."""
        wanted = request.max_completion_tokens or request.max_tokens or self.longest
        return min(wanted, self.longest)

    def verdict(self, verdict: Verdict) -> GuardVerdict:
        """A verdict as it goes out."""
        regions = [MaskedRegion(**asdict(cell)) for cell in verdict.removed]
        return GuardVerdict(
            guard=self.guard,
            flagged=verdict.flagged,
            score=verdict.score,
            masked_regions=regions,
        )


def create_app(guard: Guard, served: Served, *, batch: int) -> FastAPI:
    """Build the application around a guard, whose model it then owns."""
    desk = Desk(guard, batch)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(desk.close)

    app = FastAPI(title="DiSP guard", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_exception_handler(EngineError, _refused)

    @app.get("/livez")
    async def alive() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        model = {"id": served.model, "object": "model", "created": 0, "owned_by": "disp"}
        return {"object": "list", "data": [model]}

    @app.post("/v1/chat/completions", response_model=ChatCompletion)
    async def complete(request: Request) -> Response:
        asked = parse(await _body(request))
        question = await run_in_threadpool(question_of, asked)
        length = served.length(asked)
        if not asked.stream:
            guarded = await asyncio.wrap_future(desk.answer(question, length))
            return JSONResponse(completion(served, guarded, length).model_dump())
        stream = desk.stream(question, length)
        opening = await run_in_threadpool(stream.pieces.get)
        if not isinstance(opening, Opening):
            raise opening if isinstance(opening, Exception) else EngineError("No answer came.")
        events = streamed(served, opening, stream, length)
        return StreamingResponse(events, media_type="text/event-stream")

    return app


async def _body(request: Request) -> bytes:
    """The whole request, unless it is larger than any question should be."""
    held = bytearray()
    async for part in request.stream():
        held += part
        if len(held) > LARGEST_REQUEST:
            raise InvalidRequestError(f"the request takes more than {LARGEST_REQUEST} bytes.")
    return bytes(held)


def parse(body: bytes) -> ChatRequest:
    """Read a request, or say which part of it is wrong."""
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "body"
        raise InvalidRequestError(f"{place}: {first['msg']}.") from error


def completion(served: Served, guarded: Guarded, length: int) -> ChatCompletion:
    """A whole answer as it goes out."""
    return ChatCompletion(
        id=_new_id(),
        created=int(time.time()),
        model=served.model,
        choices=[
            Choice(
                message=Said(content=guarded.text), finish_reason=_reason(guarded.answered, length)
            )
        ],
        usage=Usage(
            prompt_tokens=guarded.asked,
            completion_tokens=guarded.answered,
            total_tokens=guarded.asked + guarded.answered,
        ),
        guard=served.verdict(guarded.verdict),
    )


def streamed(served: Served, opening: Opening, stream: Stream, length: int) -> Iterator[str]:
    """Server-sent events: the verdict first, then the answer's pieces, then how it ended."""
    name, created, answered = _new_id(), int(time.time()), 0

    def event(choice: ChunkChoice, verdict: GuardVerdict | None = None) -> str:
        chunk = ChatChunk(
            id=name, created=created, model=served.model, choices=[choice], guard=verdict
        )
        return f"data: {chunk.model_dump_json(exclude_none=verdict is None)}\n\n"

    try:
        first = ChunkChoice(delta=Delta(role="assistant", content=""))
        yield event(first, served.verdict(opening.verdict))
        while isinstance(piece := stream.pieces.get(), Piece):
            answered = piece.answered
            yield event(ChunkChoice(delta=Delta(content=piece.text)))
        if isinstance(piece, Exception):  # a stream that breaks off must not look finished
            raise piece
        yield event(ChunkChoice(delta=Delta(), finish_reason=_reason(answered, length)))
        yield "data: [DONE]\n\n"
    finally:
        stream.left.set()


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """Errors as OpenAI's clients expect them: 400 for what the client can mend."""
    mendable = isinstance(error, SampleError | InvalidRequestError)
    kind = "invalid_request_error" if mendable else "server_error"
    content = {"error": {"message": str(error), "type": kind, "param": None, "code": None}}
    return JSONResponse(content, status_code=400 if mendable else 503)


def _reason(answered: int, length: int) -> Literal["stop", "length"]:
    return "length" if answered >= length else "stop"


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"
