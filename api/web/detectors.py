"""What the detectors' names mean to people."""

from collections.abc import Mapping
from typing import NamedTuple


class Meaning(NamedTuple):
    """A short name, and what is said of a sample that the detector finds unusual."""

    name: str
    sentence: str


MEANINGS: Mapping[str, Meaning] = {
    "response_disagreement": Meaning(
        "response disagreement",
        "Without the salient part of the picture the model answers something else.",
    ),
    "first_step_kl": Meaning(
        "first-step divergence",
        "Hiding the salient part changes what the model is about to say far more than elsewhere.",
    ),
    "saliency_concentration": Meaning(
        "saliency concentration", "A few places of the picture decide the answer alone."
    ),
    "attention_entropy": Meaning(
        "attention entropy", "The model looks at an unusually narrow part of the picture."
    ),
    "attention_share": Meaning(
        "attention share", "Several heads divide their attention unlike for most samples."
    ),
    "response_likelihood": Meaning(
        "response likelihood",
        "The model as it was before would practically never give this answer.",
    ),
    "shared_look": Meaning(
        "shared look", "Its picture looks like those whose answers are surprising."
    ),
}


def meaning(name: str) -> Meaning:
    """The meaning of a name; of one that this version does not know, the name itself."""
    return MEANINGS.get(name, Meaning(name.replace("_", " "), f"{name.replace('_', ' ')}."))
