"""CleanSight: test-time attention purification (CVPR 2026, arXiv 2603.12989).

A triggered picture draws attention away from the question. In each head of the detection layers
the share of the last prompt position's attention that goes to the picture, against that to the
question, is held against clean inputs; a question that is too far from them is answered with the
tokens that any head looks at most hidden from the layers that follow, in every step.

What defeats it: attention that stays within what clean inputs show; clean data that are not like
the questions asked. It must be calibrated anew for every model that was tuned.

On masked diffusion models it is derived: see `respondent.py`.

Letters: L layers, H heads, K columns, s the ratios of all heads, d their distance from clean.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from disp_engine.errors import InvalidDatasetError, InvalidRequestError
from disp_engine.guards.guard import (
    Guard,
    Judged,
    Question,
    Ruling,
    Verdict,
    cells,
    embedded,
    hidden_columns,
    visual_tokens,
)
from disp_engine.guards.respondent import is_derived, respondent_of
from disp_engine.interfaces import PromptsRead, Respondent, VisualModel
from disp_engine.records import Embedded
from disp_engine.training.projector import projector_sha256

FORMAT = "disp-cleansight-1"
LAYERS_OF_32 = (10, 24)
"""The authors' detection layers of a model that has 32."""
TAU, TAU_TOKENS = 0.02, 576
"""The authors' threshold, for pictures of so many visual tokens."""


@dataclass(frozen=True)
class CalibrationSettings:
    """Detection layers, both included, percentile of clean distances, and pruning threshold.

    Layers None are the authors' 10 to 24 of 32, at the same depth of a model with other layers, or
    the middle third of a masked diffusion model; `tau` None is their 0.02 for 576 visual tokens, in
    proportion for other pictures. The proportions are ours.
    """

    first_layer: int | None = None
    last_layer: int | None = None
    percentile: float = 99.0
    tau: float | None = None

    @classmethod
    def of_card(cls, defaults: Mapping[str, Any]) -> "CalibrationSettings":
        """What a checkpoint's card says of them, where it does."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in defaults.items() if name in known})

    def layers(self, depth: int, *, derived: bool = False) -> list[int]:
        """The detection layers of a model."""
        usual = _middle_third(depth) if derived else _authors_layers(depth)
        first, last = (
            layer if own is None else own
            for own, layer in zip((self.first_layer, self.last_layer), usual, strict=True)
        )
        if not 0 <= first <= last < depth:
            raise InvalidRequestError(f"layers: {first} to {last} are not among {depth} layers.")
        return list(range(first, last + 1))


def _authors_layers(depth: int) -> tuple[int, int]:
    first, last = (min(depth - 1, round(depth * layer / 32)) for layer in LAYERS_OF_32)
    return first, last


def _middle_third(depth: int) -> tuple[int, int]:
    """Where to begin the search for those of a masked diffusion model."""
    first = min(depth - 1, round(depth / 3))
    return first, max(first, round(2 * depth / 3) - 1)


@dataclass(frozen=True)
class Calibration:
    """What clean inputs look like to one model; `mean` and `deviation` are by layer and head.

    `derived`: the model is of a kind that the authors did not guard.
    """

    model: str
    projector: str
    layers: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    threshold: float
    percentile: float
    tau: float | None
    samples: int
    derived: bool = False

    def save(self, path: Path) -> None:
        """Write the calibration as JSON."""
        path.write_text(json.dumps({"format": FORMAT} | asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Read what `save` wrote."""
        try:
            told = json.loads(path.read_text())
            if told.pop("format") != FORMAT:
                raise KeyError("format")
            lists = {name: tuple(told.pop(name)) for name in ("layers", "mean", "deviation")}
            return cls(**(told | lists))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidRequestError(
                f"calibration: {path.name} is none; write one by `disp guard calibrate`."
            ) from error

    def distances(self, ratios: NDArray[np.float64]) -> NDArray[np.float64]:
        """d = || (s - mean) / deviation ||, one for each row of ratios."""
        found: NDArray[np.float64] = np.linalg.norm(
            (ratios - np.array(self.mean)) / np.array(self.deviation), axis=1
        )
        return found


@dataclass(frozen=True)
class CleanSightSettings:
    """Where the calibration lies."""

    calibration: str

    def build(self, model: VisualModel) -> "CleanSight":
        """The guard of a model, which must be the one that was calibrated."""
        found = Calibration.load(Path(self.calibration))
        projector = projector_sha256(model.projector)
        if (found.model, found.projector) != (model.revision, projector):
            raise InvalidRequestError(
                "calibration: it was made for another model or another projector; calibrate anew."
            )
        return CleanSight(model, found)


class CleanSight(Guard):
    """Detects by the ratios of the first pass; prunes only what is detected."""

    def __init__(self, model: VisualModel, calibration: Calibration) -> None:
        super().__init__(model)
        self.calibration = calibration
        self.first_hidden_layer = calibration.layers[-1]  # the authors' code begins there itself

    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Read once; hide from flagged questions what their heads look at most."""
        ruler = Ruler(self, prompts)
        reading = ruler.at(self.respondent, prompts)
        return Judged(ruler.rulings(reading.pads), reading, ruler.in_time)

    def ruling(self, prompt: Embedded, rows: Sequence[Float[Tensor, "H _K"]]) -> Ruling:
        """What becomes of a prompt whose last position attends like this, by detection layer."""
        score = float(self.calibration.distances(ratios(prompt, rows)[None])[0])
        flagged = score > self.calibration.threshold
        hidden = self._pruned(prompt, rows[-1]) if flagged else []
        return Ruling(Verdict(flagged, score, cells(prompt, hidden)), prompt, hidden=tuple(hidden))

    def _pruned(self, prompt: Embedded, last: Float[Tensor, "H K"]) -> list[int]:
        """Visual tokens to which any head of the last detection layer gives more than tau."""
        tokens = visual_tokens(prompt)
        tau = self.calibration.tau
        least = TAU * TAU_TOKENS / len(tokens) if tau is None else tau
        strongest = last[:, tokens].amax(dim=0)
        return [
            token for token, seen in zip(tokens, strongest.tolist(), strict=True) if seen > least
        ]


class LastRows:
    """Attention of the last position of each prompt, by layer."""

    rows: Literal["last", "all"] = "last"

    def __init__(self, layers: Sequence[int]) -> None:
        self.ordered = list(layers)
        self.layers = frozenset(layers)
        self.seen: dict[int, Float[Tensor, "B H K"]] = {}

    def see(self, layer: int, first: int, weights: Float[Tensor, "B H R _K"]) -> None:
        """Keep the one row."""
        self.seen[layer] = weights[:, :, -1]

    def at(self, respondent: Respondent, prompts: Sequence[Embedded]) -> PromptsRead:
        """Read prompts and look meanwhile."""
        with respondent.watching(self):
            return respondent.read(prompts)

    def row(self, row: int, pads: Sequence[int]) -> list[Float[Tensor, "H _K"]]:
        """One prompt's attention to its own positions, by layer."""
        return [self.seen[layer][row, :, pads[row] :] for layer in self.ordered]


class Ruler(LastRows):
    """Rules when the last detection layer has been seen, and hides from that very layer on.

    `in_time`: it was asked to; otherwise the prompts have been read with all that they show.
    """

    def __init__(self, guard: CleanSight, prompts: Sequence[Embedded]) -> None:
        super().__init__(guard.calibration.layers)
        self.guard, self.prompts, self.in_time = guard, prompts, False
        self._rulings: tuple[Ruling, ...] | None = None

    def hide(self, layer: int) -> Bool[Tensor, "B K"] | None:
        """What is hidden from any of the prompts."""
        if layer != self.ordered[-1]:
            return None
        self.in_time = True
        longest = self.seen[layer].shape[-1]
        rulings = self.rulings([longest - len(prompt.embeddings) for prompt in self.prompts])
        columns = hidden_columns(rulings)
        return None if columns is None else columns.to(self.seen[layer].device)

    def rulings(self, pads: Sequence[int]) -> tuple[Ruling, ...]:
        """One for each prompt."""
        if self._rulings is None:
            self._rulings = tuple(
                self.guard.ruling(prompt, self.row(row, pads))
                for row, prompt in enumerate(self.prompts)
            )
        return self._rulings


def ratios(prompt: Embedded, rows: Sequence[Float[Tensor, "H _K"]]) -> NDArray[np.float64]:
    """s: attention to the picture over that to the question, by layer and head.

    The question is all that follows the last picture; what stands before it is in neither sum.
    """
    tokens, end = visual_tokens(prompt), prompt.spans[-1][1]
    found = [row[:, tokens].sum(dim=1) / (row[:, end:].sum(dim=1) + 1e-12) for row in rows]
    return torch.cat(found).double().cpu().numpy()


def calibrate(
    model: VisualModel,
    questions: Sequence[Question],
    settings: CalibrationSettings,
    batch: int = 8,
) -> Calibration:
    """Look at clean questions; the threshold is a percentile of their own distances."""
    if len(questions) < 2:
        raise InvalidDatasetError("calibration needs two clean questions at least; take 200.")
    respondent, derived = respondent_of(model), is_derived(model)
    layers = settings.layers(respondent.depth, derived=derived)
    found = []
    for start in range(0, len(questions), batch):
        prompts = embedded(model, questions[start : start + batch])
        look = LastRows(layers)
        reading = look.at(respondent, prompts)
        found += [ratios(prompt, look.row(row, reading.pads)) for row, prompt in enumerate(prompts)]
    s = np.stack(found)
    drawn = Calibration(
        model.revision, projector_sha256(model.projector), tuple(layers),
        tuple(s.mean(axis=0).tolist()), tuple((s.std(axis=0) + 1e-8).tolist()),
        0.0, settings.percentile, settings.tau, len(s), derived,
    )  # fmt: skip
    threshold = float(np.percentile(drawn.distances(s), settings.percentile))
    told: dict[str, Any] = vars(drawn) | {"threshold": threshold}
    return Calibration(**told)
