"""The readers of weights, a minute each."""

import pytest

from tests.fuzz.minute import spend_a_minute


@pytest.mark.parametrize("reader", ["safetensors"])
def test_a_reader_refuses_on_purpose_or_reads_what_others_read(reader: str) -> None:
    spend_a_minute(reader)
