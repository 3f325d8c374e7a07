"""Asks every detector whose needs a run can meet, micro-batch by micro-batch, and keeps it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from disp_engine import registry
from disp_engine.context import RunContext, check
from disp_engine.detection.interfaces import Detector, Evidence
from disp_engine.detection.shared_look import look
from disp_engine.detection.verdict import Verdict, judge
from disp_engine.records import Sample
from disp_engine.stages import Stage

Measured = Mapping[str, Float[np.ndarray, "S _"]]
"""What each detector has taken from the same samples."""
LOOKS = "looks"
"""Beside the detectors' names: the looks of the samples' first pictures."""
Gather = Callable[[int, Sequence[Sample]], Evidence]
"""What is known of the samples of the micro-batch that begins at a place."""


@dataclass(frozen=True)
class Examination:
    """What the detectors take from a whole dataset; `gather` gives a micro-batch's evidence."""

    gather: Gather
    micro_batch: int
    context: RunContext

    def run(self, samples: Sequence[Sample], stage: Stage) -> Measured:
        """Measure what is not yet measured."""
        for start in range(0, len(samples), self.micro_batch):
            file = _file(start)
            if not stage.has(file):
                evidence = self.gather(start, samples[start : start + self.micro_batch])
                stage.write_tensors(file, measurements(evidence))
                check(self.context)
            self.context.progress(
                min(start + self.micro_batch, len(samples)), len(samples), "samples"
            )
        stage.finish()
        starts = range(0, len(samples), self.micro_batch)
        parts = [stage.read_tensors(_file(start)) for start in starts]
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def verdict_of(measured: Measured) -> Verdict:
    """Judge together all samples that were measured."""
    detectors = {name: registry.detector(name) for name in measured if name != LOOKS}
    scores = {name: found.score(measured[name]) for name, found in detectors.items()}
    deciding = [name for name, detector in detectors.items() if detector.decides]
    return judge(scores, deciding, measured[LOOKS])


def measurements(
    evidence: Evidence, detectors: Mapping[str, Detector] | None = None
) -> dict[str, torch.Tensor]:
    """What detectors (all that can be asked) take from the samples, and how their pictures look."""
    detectors = askable(evidence) if detectors is None else detectors
    pictures = (evidence.cache.of(sample, sample.turns)[0] for sample in evidence.samples)
    taken = {name: np.asarray(found.measure(evidence)) for name, found in detectors.items()}
    return {
        LOOKS: torch.stack([look(picture) for picture in pictures]),
        **{name: torch.from_numpy(values.astype(np.float64)) for name, values in taken.items()},
    }


def askable(evidence: Evidence) -> dict[str, Detector]:
    """The detectors whose needs are met."""
    built = {name: registry.detector(name) for name in registry.DETECTORS}
    return {
        name: detector
        for name, detector in built.items()
        if all(evidence.has(need) for need in detector.needs)
    }


def _file(start: int) -> str:
    return f"{start:07d}.safetensors"
