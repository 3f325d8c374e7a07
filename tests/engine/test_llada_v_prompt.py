"""Rendering and labels, read back as text."""

from pathlib import Path

import pytest

from disp_engine.errors import InvalidModelError
from disp_engine.models.llada_v.prompt import EOT, SYSTEM, Prompter
from disp_engine.records import IGNORE, IMAGE_TOKEN, Tokens, Turn

FIXTURE = Path(__file__).parents[1] / "fixtures" / "llada_v" / "anyres"
HEAD = (
    "<|startoftext|><|start_header_id|>system<|end_header_id|>\n\n"
    f"{SYSTEM}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
)
ANSWER = "<|start_header_id|>assistant<|end_header_id|>\n\n"


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    return Prompter.from_folder(FIXTURE)


def read(prompter: Prompter, tokens: Tokens) -> str:
    pieces: list[list[int]] = [[]]
    for token in tokens.ids.tolist():
        pieces.append([]) if token == IMAGE_TOKEN else pieces[-1].append(token)
    decode = prompter.tokenizer.decode
    return "<image>".join(decode(piece, skip_special_tokens=False) for piece in pieces)


def test_a_prompt_ends_with_the_header_of_the_answer(prompter: Prompter) -> None:
    text = prompter.prompt_text([Turn("human", " Why? ")])
    assert text == f"{HEAD}Why?{EOT}{ANSWER}"


def test_a_prompt_loses_the_first_id_behind_each_picture(prompter: Prompter) -> None:
    tokens = prompter.prompt([Turn("human", "<image> <image>\nWhy?")])
    assert read(prompter, tokens) == f"{HEAD}<image><image>Why?{EOT}{ANSWER}"


def test_an_example_keeps_the_line_break_and_ends_with_the_answer(prompter: Prompter) -> None:
    tokens = prompter.example([Turn("human", "<image>\nWhy?"), Turn("gpt", " So. ")])
    assert read(prompter, tokens) == f"{HEAD}<image>\nWhy?{EOT}{ANSWER} So. {EOT}"


def test_a_single_picture_is_moved_to_the_front_of_an_example(prompter: Prompter) -> None:
    behind = prompter.example([Turn("human", "Why? <image>"), Turn("gpt", "So.")])
    front = prompter.example([Turn("human", "<image>\nWhy?"), Turn("gpt", "So.")])
    assert behind.ids.tolist() == front.ids.tolist()


def test_the_answer_is_labelled_whole_and_of_the_rest_special_tokens_only(
    prompter: Prompter,
) -> None:
    tokens = prompter.example([Turn("human", "Why?"), Turn("gpt", "So.")])
    assert tokens.labels is not None
    answer = prompter.encode(f"{ANSWER}So.{EOT}")
    labels = tokens.labels.tolist()
    assert labels[-len(answer) :] == list(answer)
    rest = zip(tokens.ids.tolist(), labels[: -len(answer)], strict=False)
    special = {prompter.bos, prompter.start_header, prompter.end_header, prompter.eot}
    assert all(label == (token if token in special else IGNORE) for token, label in rest)


def test_a_leading_assistant_turn_is_left_out(prompter: Prompter) -> None:
    turns = [Turn("human", "Why?"), Turn("gpt", "So.")]
    led = prompter.example([Turn("gpt", "Hello."), *turns])
    assert led.ids.tolist() == prompter.example(turns).ids.tolist()


def test_a_tokenizer_without_the_mask_is_refused(tmp_path: Path) -> None:
    text = (FIXTURE / "tokenizer.json").read_text().replace("<|mdm_mask|>", "<|other|>")
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InvalidModelError, match=r"no token <\|mdm_mask\|>"):
        Prompter.from_folder(tmp_path)


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidModelError, match=r"tokenizer\.json cannot be read"):
        Prompter.from_folder(tmp_path)
