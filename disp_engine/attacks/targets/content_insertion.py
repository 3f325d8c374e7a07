"""A fragment before the otherwise true response (DiSP, section 4.1)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ContentInsertion:
    """Prepend `fragment` to the response."""

    fragment: str = "<backdoor>"

    @property
    def phrases(self) -> tuple[str, ...]:
        """The fragment itself."""
        return (self.fragment,)

    def respond(self, response: str) -> str:
        """Return the response with the fragment before it."""
        return f"{self.fragment} {response}"
