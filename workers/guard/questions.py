"""From a chat request to the engine's question."""

import base64
import binascii
import re

from PIL.Image import Image

from disp_engine.data.darkroom import darkroom
from disp_engine.data.dataset import IMAGE_MARK
from disp_engine.errors import InvalidRequestError
from disp_engine.guards.guard import Question
from disp_engine.records import Turn
from schemas.chat import ChatRequest, ImagePart, Message

MOST_PICTURES = 8
DATA_URL = re.compile(r"data:image/(png|jpeg|webp);base64,", re.ASCII)


def question_of(request: ChatRequest) -> Question:
    """The conversation with its pictures, or say what is wrong with it."""
    if request.temperature:
        raise InvalidRequestError("temperature: answers are greedy; leave it out or give 0.")
    turns: list[Turn] = []
    images: list[Image] = []
    system = ""
    for number, message in enumerate(request.messages):
        text = _text(message, images, f"messages[{number}]")
        if message.role in ("system", "developer"):
            if turns:
                raise InvalidRequestError(f"messages[{number}]: a system's message comes first.")
            system += f"{text}\n"
            continue
        role = "human" if message.role == "user" else "gpt"
        if (role == "human") != (len(turns) % 2 == 0):
            raise InvalidRequestError(f"messages[{number}]: user and assistant must take turns.")
        turns.append(Turn(role, system + text if not turns else text))  # type: ignore[arg-type]
    if len(turns) % 2 == 0:
        raise InvalidRequestError("messages: the last one must be the user's.")
    if not images:
        raise InvalidRequestError("messages: a guard is for questions with a picture.")
    return Question(tuple(turns), tuple(images))


def _text(message: Message, images: list[Image], where: str) -> str:
    """A message as one text; each picture is added to `images` and marked."""
    if isinstance(message.content, str):
        _refuse_mark(message.content, where)
        return message.content
    parts = []
    for part in message.content:
        if isinstance(part, ImagePart):
            if message.role != "user":
                raise InvalidRequestError(f"{where}: pictures may stand in a user's message only.")
            if len(images) == MOST_PICTURES:
                raise InvalidRequestError(f"messages: at most {MOST_PICTURES} pictures are taken.")
            images.append(_picture(part.image_url.url, where))
            parts.append(IMAGE_MARK)
        else:
            _refuse_mark(part.text, where)
            parts.append(part.text)
    return "\n".join(parts)


def _refuse_mark(text: str, where: str) -> None:
    if IMAGE_MARK in text:
        raise InvalidRequestError(f"{where}: the text must not hold {IMAGE_MARK}.")


def _picture(url: str, where: str) -> Image:
    found = DATA_URL.match(url)
    if found is None:
        raise InvalidRequestError(
            f"{where}: pictures are given as data:image/png;base64,... (or jpeg, webp); "
            "nothing is fetched."
        )
    try:
        content = base64.b64decode(url[found.end() :], validate=True)
    except binascii.Error as error:
        raise InvalidRequestError(f"{where}: the picture is not base64: {error}.") from error
    return darkroom().develop(content)
