"""How much an archive may unpack to, counted while it is read."""

from disp_engine.errors import ArchiveBomb

FREE = 64 * 2**20
"""Bytes that any archive may unpack to, however small it is."""
RATIO = 10
"""Times its own size for more than that."""
MEMBER_FREE = 2**20
MEMBER_RATIO = 20
DOCUMENT_RATIO = 100
"""Records repeat their keys: those of the built-in world are packed 19:1."""
DOCUMENTS = (".json", ".jsonl")
MAX_MEMBER = 2 * 2**30
"""Bytes of one member; a picture may have far fewer (pictures.py)."""


class Budget:
    """What is left to unpack of an archive of `packed` bytes."""

    def __init__(self, packed: int) -> None:
        self._left = max(FREE, RATIO * packed)

    def member(self, name: str, size: int, packed: int) -> None:
        """Refuse a member by what its header says, before any of it is unpacked."""
        if size > MAX_MEMBER:
            raise ArchiveBomb(f"{name!r}: larger than {MAX_MEMBER} bytes.")
        ratio = DOCUMENT_RATIO if name.lower().endswith(DOCUMENTS) else MEMBER_RATIO
        if size > MEMBER_FREE and size > ratio * max(packed, 1):
            raise ArchiveBomb(f"{name!r}: compressed beyond {ratio}:1.")

    def spend(self, size: int) -> None:
        """Count bytes that were unpacked."""
        self._left -= size
        if self._left < 0:
            raise ArchiveBomb(
                f"unpacks to more than {RATIO} times its size and more than {FREE} bytes."
            )
