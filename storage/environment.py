"""Secrets that come as files: `NAME_FILE=PATH` stands for `NAME=` and what is in the file."""

import os
from collections.abc import MutableMapping
from pathlib import Path

PREFIX, SUFFIX = "DISP_", "_FILE"


class SecretGivenTwice(Exception):
    """A secret is given as a variable and as a file: remove one of them."""


class SecretUnreadable(Exception):
    """The file of a secret cannot be read: check its path and its owner."""


def read_secret_files(environment: MutableMapping[str, str] = os.environ) -> None:
    """Put each secret's text under its plain name, for whoever reads the environment next.

    Call it where a process starts, before anything reads settings; calling it again changes
    nothing. Raises `SecretGivenTwice` or `SecretUnreadable`.
    """
    for variable in sorted(environment):
        name = variable.removesuffix(SUFFIX)
        if name == variable or not name.startswith(PREFIX):
            continue
        try:
            text = Path(environment[variable]).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretUnreadable(f"{SecretUnreadable.__doc__} [{variable}: {error}]") from error
        if environment.get(name, text) != text:
            raise SecretGivenTwice(f"{SecretGivenTwice.__doc__} [{name}]")
        environment[name] = text
