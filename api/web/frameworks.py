"""What the report's findings answer in the frameworks that audits go by."""

from collections.abc import Sequence
from typing import NamedTuple


class Mapped(NamedTuple):
    """An item of a framework, and the part of the report that speaks to it."""

    framework: str
    item: str
    answered_by: str


FRAMEWORKS: Sequence[Mapped] = (
    Mapped(
        "OWASP Top 10 for LLM Applications 2025",
        "LLM04: Data and Model Poisoning",
        "The verdict with its p-value, the flagged samples, and the success rate before and after.",
    ),
    Mapped(
        "MITRE ATLAS",
        "AML.T0020: Poison Training Data",
        "The recovered trigger and the inferred target: evidence that the technique was used.",
    ),
    Mapped(
        "NIST AI RMF 1.0",
        "MEASURE 2.7: AI system security and resilience are evaluated and documented",
        "Measured rates with counts and intervals, settings, seeds, versions and digests.",
    ),
    Mapped(
        "NIST AI RMF 1.0",
        "MANAGE 2.4: mechanisms to disengage systems that perform inconsistently with intent",
        "What was rewritten, kept and quarantined; the purified data and the cleaned projector.",
    ),
)
