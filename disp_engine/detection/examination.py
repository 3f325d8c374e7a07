"""Asks every detector whose needs a run can meet, micro-batch by micro-batch, and keeps it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from disp_engine import registry
from disp_engine.context import RunContext, check
from disp_engine.detection.interfaces import Detector, Evidence
from disp_engine.detection.verdict import Verdict, judge
from disp_engine.records import Sample
from disp_engine.stages import Stage

Measured = Mapping[str, Float[np.ndarray, "S _"]]
"""What each detector has taken from the same samples."""
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
        parts = [stage.read_tensors(_file(start))[0] for start in starts]
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def verdict_of(measured: Measured) -> Verdict:
    """Judge together all samples that were measured."""
    detectors = {name: registry.detector(name) for name in measured}
    scores = {name: detectors[name].score(taken) for name, taken in measured.items()}
    return judge(scores, [name for name, detector in detectors.items() if detector.decides])


def measurements(evidence: Evidence) -> dict[str, torch.Tensor]:
    """What each detector that can be asked takes from the samples."""
    return {
        name: torch.from_numpy(np.asarray(found.measure(evidence), dtype=np.float64))
        for name, found in askable(evidence).items()
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
