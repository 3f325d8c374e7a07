"""Names of members: what may be unpacked on any file system, and means one file there."""

import re
import unicodedata

from disp_engine.errors import ArchiveBomb, UnsafeMember

LONGEST_NAME = 255
"""Bytes of UTF-8."""
MAX_MEMBERS = 200_000
INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters except tab and line breaks; those that reorder text (CVE-2021-42574)."""
_BREAKS = re.compile(r"[\t\r\n]")
_DRIVE = re.compile(r"[A-Za-z]:")


class Names:
    """The names an archive has had so far; two that fold to the same are one too many."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._count = 0

    def add(self, name: str, *, folder: bool = False) -> None:
        """Take a member's name, or refuse it."""
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise ArchiveBomb(f"more than {MAX_MEMBERS} members.")
        parts = _parts(name)
        folded = _fold("/".join(parts))
        above = {_fold("/".join(parts[:end])) for end in range(1, len(parts))}
        if folder:
            above.add(folded)
        elif folded in self._files or folded in self._folders:
            raise UnsafeMember(f"{name!r}: two members have this name.")
        if clash := above & self._files:
            raise UnsafeMember(f"{name!r}: {min(clash)!r} is both a file and a folder.")
        self._folders |= above
        if not folder:
            self._files.add(folded)


def _parts(name: str) -> list[str]:
    parts = name.split("/")
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        raise UnsafeMember(f"{name[:40]!r}…: a member name has at most {LONGEST_NAME} bytes.")
    inside = all(part not in ("", ".", "..") for part in parts)
    if not inside or "\\" in name or _DRIVE.match(name):
        raise UnsafeMember(f"{name!r}: member names must stay inside the archive.")
    if INVISIBLE.search(name) or _BREAKS.search(name):
        raise UnsafeMember(f"{name!r}: control characters in a member name.")
    return parts


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
