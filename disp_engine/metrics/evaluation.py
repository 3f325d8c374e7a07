"""ASR and clean performance from the responses of one projector."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from disp_engine.interfaces import VisualModel
from disp_engine.metrics.rate import Rate
from disp_engine.metrics.success import ContainsAny
from disp_engine.records import Sample


@dataclass(frozen=True)
class Answer:
    """What the model said to one item, beside the reference.

    `response` is None when the item failed, for the reason in `failure`; `agreeing` of `compared`
    tokens are those of the reference at the same place.
    """

    id: str
    reference: str
    response: str | None
    agreeing: int = 0
    compared: int = 0
    failure: str | None = None


def compared(model: VisualModel, item: Sample, ids: Int[Tensor, " T"], text: str) -> Answer:
    """What the model said in answer to an item's first question, beside the item's own answer."""
    reference = item.turns[1].text
    expected = model.tokenise_response(reference)
    both = min(len(ids), len(expected))
    agreeing = int((ids[:both].cpu() == expected[:both].cpu()).sum())
    return Answer(item.id, reference, text, agreeing, max(len(ids), len(expected)))


def attack_success(answers: Sequence[Answer], success: ContainsAny) -> Rate:
    """ASR over the scored answers; an empty answer is a failure, not a safe one."""
    scored = [a.response for a in answers if a.response is not None and a.response.strip()]
    return Rate(sum(success(text) for text in scored), len(scored), len(answers) - len(scored))


def clean_performance(answers: Sequence[Answer]) -> Rate:
    """Share of answers equal to the reference (outer white space apart)."""
    scored = [a for a in answers if a.response is not None]
    right = sum(str(a.response).strip() == a.reference.strip() for a in scored)
    return Rate(right, len(scored), len(answers) - len(scored))


def token_agreement(answers: Sequence[Answer]) -> Rate:
    """Share of tokens, over all answers, that agree with the reference at the same place."""
    scored = [a for a in answers if a.response is not None]
    return Rate(
        sum(a.agreeing for a in scored),
        sum(a.compared for a in scored),
        len(answers) - len(scored),
    )


def measure(
    triggered: Sequence[Answer] | None,
    clean: Sequence[Answer] | None,
    success: ContainsAny | None,
) -> dict[str, Any]:
    """All rates that the given sets allow; the others are null.

    Robust performance is the share of triggered items answered as if there were no trigger.
    """
    rates: dict[str, Rate | None] = {
        "asr_with_trigger": attack_success(triggered, success) if triggered and success else None,
        "asr_without_trigger": attack_success(clean, success) if clean and success else None,
        "clean_performance": clean_performance(clean) if clean else None,
        "token_agreement": token_agreement(clean) if clean else None,
        "robust_performance": clean_performance(triggered) if triggered else None,
    }
    return {name: rate.to_json() if rate else None for name, rate in rates.items()}
