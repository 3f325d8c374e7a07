"""Chat completions on the wire, as OpenAI's API has them, and what a guard adds to them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.wire import Resource


def _refuse(value: Any) -> None:
    if value:
        raise ValueError("is not supported; leave it out")


Unsupported = Annotated[Any, AfterValidator(_refuse)]
"""Something that would change the answer, or what is told of it, if it were done."""


class Asked(BaseModel):
    """Something a client of OpenAI's API asks; fields that change nothing here are let pass."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class ImageUrl(Asked):
    """A picture within its URL: `data:image/png;base64,...`, JPEG or WebP alike."""

    url: str


class ImagePart(Asked):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(Asked):
    """A text."""

    type: Literal["text"]
    text: str


class PlainText(Asked):
    """The one form that answers have."""

    type: Literal["text"]


class Message(Asked):
    """One message; a system's text is put before the first question."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]


class ChatRequest(Asked):
    """A question; answers are greedy, so that a temperature other than 0 is refused."""

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = None
    n: int = Field(default=1, ge=1, le=1)
    stream: bool = False
    stop: Unsupported = None
    tools: Unsupported = None
    functions: Unsupported = None
    tool_choice: Unsupported = None
    function_call: Unsupported = None
    response_format: PlainText | None = None
    logprobs: Unsupported = None
    logit_bias: Unsupported = None
    frequency_penalty: Unsupported = None
    presence_penalty: Unsupported = None
    audio: Unsupported = None


class MaskedRegion(Resource):
    """A visual token that the model was not shown: a cell of a tile of `rows` x `columns`."""

    picture: int
    tile: int
    row: int
    column: int
    rows: int
    columns: int


class GuardVerdict(Resource):
    """What the guard thinks of a question; `flagged` is null where the guard does not detect."""

    guard: str
    flagged: bool | None
    score: float | None
    masked_regions: list[MaskedRegion]


class Said(Resource):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(Resource):
    """The one answer there is; `length` where it was cut."""

    index: int = 0
    message: Said
    finish_reason: Literal["stop", "length"]


class Usage(Resource):
    """Tokens; visual ones count as read."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(Resource):
    """An answer with the guard's verdict."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    guard: GuardVerdict


class Delta(Resource):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(Resource):
    """A chunk's part of the answer."""

    index: int = 0
    delta: Delta
    finish_reason: Literal["stop", "length"] | None = None


class ChatChunk(Resource):
    """One event of a streamed answer; the first carries the verdict."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    guard: GuardVerdict | None = None
