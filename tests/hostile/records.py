"""Documents that a lenient reader would take, or take for something else."""

import io
import json
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

from PIL import Image

from tests.hostile.inputs import DataInput

DATASET, PICKLE = "invalid_dataset", "pickle_refused"


def still(form: str = "PNG", size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 77).save(out, form)
    return out.getvalue()


def record(name: Any = "a", **changes: Any) -> dict[str, Any]:
    turns = [turn("human", "<image>\nWhat?"), turn("gpt", "A square.")]
    return {"id": name, "image": "images/a.png", "conversations": turns} | changes


def turn(role: str, text: Any) -> dict[str, Any]:
    return {"from": role, "value": text}


PICTURE = still()
DOCUMENT = json.dumps([record()]).encode()


def archive(members: dict[str, bytes]) -> bytes:
    """An honest zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


def document(content: bytes, name: str = "data.json") -> bytes:
    return archive({name: content, "images/a.png": PICTURE})


def records(*items: Any) -> bytes:
    return document(json.dumps(list(items)).encode())


def sixty_megabytes() -> bytes:
    """A list that is too long to be held at once, none of whose records can be used."""
    noise = (Random(n).randbytes(480).hex().encode() for n in range(60_000))
    listed = b",\n".join(b'{"id": %d, "noise": "%s"}' % each for each in enumerate(noise))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data.json", b"[" + listed + b"]")
    return out.getvalue()


def said(question: Any = "<image>\nWhat?", answer: Any = "A square.") -> bytes:
    return records(record(conversations=[turn("human", question), turn("gpt", answer)]))


def raw(*replacements: tuple[bytes, bytes]) -> Callable[[], bytes]:
    """The good document with parts of its text replaced."""

    def make() -> bytes:
        text = DOCUMENT
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new, 1)
        return document(text)

    return make


LINE = json.dumps(record()).encode() + b"\n"
_DEEP = b'"deep": ' + b"[" * 40 + b"]" * 40 + b', "id": "a"'
_DEEPER = b'"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b', "id": "a"'
_ID = b'"id": "a"'

_INPUTS: list[tuple[str, Callable[[], bytes], str]] = [
    ("duplicate_key", raw((_ID, b'"id": "a", "id": "b"')), DATASET),
    ("duplicate_key_in_turn", raw((b'"from": "gpt"', b'"from": "gpt", "from": "gpt"')), DATASET),
    ("nan", raw((_ID, b'"id": "a", "score": NaN')), DATASET),
    ("infinity", raw((_ID, b'"id": "a", "score": -Infinity')), DATASET),
    ("number_too_large", raw((_ID, b'"id": "a", "score": 1e999')), DATASET),
    ("number_too_long", raw((_ID, b'"id": "a", "score": ' + b"9" * 5000)), DATASET),
    ("deep", raw((_ID, _DEEP)), DATASET),
    ("very_deep", raw((_ID, _DEEPER)), DATASET),
    ("half_a_surrogate", raw((b"A square", b"A \\ud800 square")), DATASET),
    ("control_character_raw", raw((b"A square", b"A \x01 square")), DATASET),
    ("not_utf8", raw((b"A square", b"A \xff square")), DATASET),
    ("utf16", lambda: document(DOCUMENT.decode().encode("utf-16")), DATASET),
    ("trailing_comma", raw((b"}]", b"},]")), DATASET),
    ("text_behind", lambda: document(DOCUMENT + b" []"), DATASET),
    ("cut_off", lambda: document(DOCUMENT[:-20]), DATASET),
    ("an_object", lambda: document(b'{"id": "a"}'), DATASET),
    ("an_empty_list", lambda: document(b"[]"), DATASET),
    ("an_empty_file", lambda: document(b""), DATASET),
    ("record_of_megabytes", lambda: said(answer="a" * (2 << 20)), DATASET),
    ("million_of_records", lambda: document(b"[" + b"{},\n" * 1_000_000 + b"{}]"), DATASET),
    ("brackets_of_megabytes", lambda: document(b"[" + b"[]," * 1_000_000 + b"[]]"), DATASET),
    ("line_broken", lambda: document(LINE + b"{\n" + LINE, "data.jsonl"), DATASET),
    ("line_of_megabytes", lambda: document(LINE + b" " * (2 << 20) + LINE, "d.jsonl"), DATASET),
    ("two_records_in_a_line", lambda: document(LINE.strip() + LINE, "data.jsonl"), DATASET),
    ("no_document", lambda: archive({"images/a.png": PICTURE}), DATASET),
    ("two_documents", lambda: archive({"a.json": DOCUMENT, "b.json": DOCUMENT}), DATASET),
    (
        "webdataset",
        lambda: archive({f"{n}.{e}": PICTURE for n in range(3) for e in ("json", "png")}),
        DATASET,
    ),
    ("parquet", lambda: archive({"data.parquet": b"PAR1" + bytes(64)}), DATASET),
    (
        "pickle",
        lambda: archive({"data.pkl": b"\x80\x04N.", "data.json": DOCUMENT}),
        PICKLE,
    ),
    ("pickle_as_png", lambda: archive({"images/a.png": b"\x80\x04N."}), PICKLE),
    ("torch_file", lambda: archive({"images/a.pth": b"abc"}), PICKLE),
    ("extension_module", lambda: archive({"images/a.pyd": b"abc"}), PICKLE),
    ("numpy_file_by_name", lambda: archive({"images/a.npy": b"abc"}), PICKLE),
    ("numpy_file", lambda: archive({"a.png": b"\x93NUMPY\1\0" + bytes(60)}), PICKLE),
    ("record_is_a_list", lambda: records([]), DATASET),
    ("id_is_an_object", lambda: records(record({"a": 1})), DATASET),
    ("id_too_long", lambda: records(record("a" * 600)), DATASET),
    ("id_with_bidi", lambda: records(record("a\u202e")), DATASET),
    ("id_twice", lambda: records(record(), record()), DATASET),
    ("image_is_a_number", lambda: records(record(image=7)), DATASET),
    ("image_missing", lambda: records(record(image="images/z.png")), DATASET),
    ("image_traversal", lambda: records(record(image="../../../etc/passwd")), DATASET),
    ("image_absolute", lambda: records(record(image="/etc/passwd")), DATASET),
    (
        "image_of_metadata_service",
        lambda: records(record(image="http://169.254.169.254/")),
        DATASET,
    ),
    ("image_file_url", lambda: records(record(image="file:///etc/passwd")), DATASET),
    ("more_marks_than_images", lambda: said("<image><image>\nWhat?"), DATASET),
    ("fewer_marks_than_images", lambda: said("What?"), DATASET),
    ("mark_in_the_answer", lambda: said("What?", "<image>"), DATASET),
    ("unknown_role", lambda: records(record(conversations=[turn("system", "x")] * 2)), DATASET),
    ("wrong_order", lambda: records(record(conversations=[turn("gpt", "x")] * 2)), DATASET),
    ("no_answer", lambda: records(record(conversations=[turn("human", "<image>x")])), DATASET),
    ("conversation_is_text", lambda: records(record(conversations="x")), DATASET),
    ("too_many_turns", lambda: records(record(conversations=[turn("human", "x")] * 2000)), DATASET),
    ("turn_without_text", lambda: said(answer=None), DATASET),
    ("empty_turn", lambda: said(answer=" \n"), DATASET),
    ("very_long_turn", lambda: said(answer="a" * 70_000), DATASET),
    ("control_character", lambda: said(answer="a\u0000b"), DATASET),
    ("bidi", lambda: said(answer="a\u202eb\u202c"), DATASET),
    (
        "unused_picture",
        lambda: archive({"data.json": DOCUMENT, "images/a.png": PICTURE, "b.png": PICTURE}),
        DATASET,
    ),
]
RECORDS = [
    *(DataInput(f"data_{name}", make, code) for name, make, code in _INPUTS),
    DataInput("data_sixty_megabytes", sixty_megabytes, DATASET, "quarantine"),
    DataInput("data_all_quarantined", lambda: said(answer=""), DATASET, "quarantine"),
]
