import pytest

from workers.translate import ErrorMessage, ProgressMessage, parse


def test_a_line_of_the_protocol_is_understood() -> None:
    line = b'{"type":"progress","stage":"purify","done":12,"total":640,"unit":"samples"}\n'
    message = parse(line)
    assert isinstance(message, ProgressMessage) and (message.done, message.total) == (12, 640)


def test_fields_of_a_newer_engine_are_ignored() -> None:
    line = b'{"type":"error","code":"invalid_dataset","message":"m","param":null,"hint":"h"}'
    message = parse(line)
    assert isinstance(message, ErrorMessage) and message.job_error().code == "invalid_dataset"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"Loading checkpoint shards",
        b"[1, 2]",
        b'{"type":"progress"}',
        b'{"type":"progress","stage":"purify","done":-1,"total":2,"unit":"samples"}',
        b'{"type":"metric","stage":"fine_tune","step":1,"values":{"loss":NaN}}',
        b'{"type":"error","code":"made_up","message":"m"}',
        b"\xff\xfe",
    ],
)
def test_anything_else_is_no_message(line: bytes) -> None:
    assert parse(line) is None
