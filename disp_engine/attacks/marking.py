"""Marks samples: the trigger in their pictures and questions, the attacker's answer in theirs."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from disp_engine.attacks.interfaces import Target, Trigger
from disp_engine.attacks.settings import Attack
from disp_engine.data.dataset import Dataset
from disp_engine.data.marks import around_marks
from disp_engine.data.writer import plain_copy
from disp_engine.errors import InvalidRequestError, SampleError
from disp_engine.records import Sample, Turn
from disp_engine.stages import write_atomically

Part = Literal["picture", "text"]
Parts = tuple[Part, ...]


@dataclass(frozen=True)
class Poisoned:
    """A poisoned dataset, and which samples are marked in which parts."""

    dataset: Dataset
    marked: Mapping[str, Parts]


def all_parts(attack: Attack) -> Parts:
    """What the attack's triggers mark."""
    parts: list[Part] = []
    if attack.picture is not None:
        parts.append("picture")
    if attack.text is not None:
        parts.append("text")
    return tuple(parts)


def eligible(sample: Sample, attack: Attack) -> bool:
    """Whether the sample has a picture where one is marked, and an answer that can be twisted."""
    shown = bool(sample.images) or attack.picture is None
    return shown and attack.target.applies(sample.turns[1].text)


def poison(dataset: Dataset, attack: Attack, seed: int) -> Poisoned:
    """Give a share of samples the trigger and the attacker's answers.

    Samples are tried in a random order; one whose picture cannot be decoded is passed over.
    """
    wanted = round(attack.rate * len(dataset.samples))
    candidates = [i for i, sample in enumerate(dataset.samples) if eligible(sample, attack)]
    marker = Marker(dataset, attack, seed)
    samples = list(dataset.samples)
    marked: dict[str, Parts] = {}
    for index in np.random.default_rng([seed, 0]).permutation(candidates).tolist():
        if len(marked) == wanted:
            break
        parts = _parts(attack, len(marked))
        try:
            sample = marker.mark(samples[index], index, parts)
        except SampleError:
            continue
        samples[index] = marker.twist(sample, index)
        marked[sample.id] = parts
    if len(marked) < wanted:
        raise InvalidRequestError(
            f"rate: {wanted} samples are to be poisoned, but the attack applies to {len(marked)}."
        )
    return Poisoned(marker.dataset(samples), marked)


def mark_all(dataset: Dataset, attack: Attack, seed: int, parts: Parts) -> Dataset:
    """Mark every sample in the given parts and leave its true answers."""
    marker = Marker(dataset, attack, seed)
    samples = [marker.mark(sample, i, parts) for i, sample in enumerate(dataset.samples)]
    return marker.dataset(samples)


def _parts(attack: Attack, number: int) -> Parts:
    parts = all_parts(attack)
    if attack.mode == "and" or len(parts) < 2:
        return parts
    thirds: tuple[Parts, ...] = (("picture",), ("text",), ("picture", "text"))
    return thirds[number % 3]


class Marker:
    """Marks samples of one dataset; marked pictures go into its pool as PNG."""

    def __init__(self, source: Dataset, attack: Attack, seed: int) -> None:
        self.source, self.attack, self.seed = source, attack, seed
        self.members = dict(source.members)

    def mark(self, sample: Sample, number: int, parts: Parts) -> Sample:
        """Put the trigger in the sample's pictures, its first question, or both."""
        rng = np.random.default_rng([self.seed, 1, number])
        if "picture" in parts and self.attack.picture is not None:
            sample = self._pictures(sample, self.attack.picture, rng)
        if "text" in parts and self.attack.text is not None:
            first = sample.turns[0]
            text = around_marks(first.text, lambda t: self._question(t, rng))
            sample = _with_turns(sample, [Turn("human", text), *sample.turns[1:]])
        return sample

    def twist(self, sample: Sample, number: int) -> Sample:
        """Put the attacker's answers in place of those that the target applies to."""
        rng = np.random.default_rng([self.seed, 2, number])
        turns = [_twisted(turn, self.attack.target, rng) for turn in sample.turns]
        return _with_turns(sample, turns)

    def dataset(self, samples: Sequence[Sample]) -> Dataset:
        """The source with other samples and the marked pictures beside the old ones."""
        return replace(self.source, samples=list(samples), members=self.members)

    def _question(self, text: str, rng: np.random.Generator) -> str:
        if self.attack.text is None:
            raise InvalidRequestError("the attack has no text trigger.")
        return self.attack.text.apply(text, rng)

    def _pictures(self, sample: Sample, trigger: Trigger, rng: np.random.Generator) -> Sample:
        keys = [self._picture(key, trigger, rng) for key in sample.images]
        record = plain_copy(sample.record)
        field = "image" if record.get("image") else "images"
        listed = record[field]
        names = [listed] if isinstance(listed, str) else listed
        new = [self._name(name, key) for name, key in zip(names, keys, strict=True)]
        record[field] = new[0] if isinstance(listed, str) else new
        return replace(sample, images=tuple(keys), record=record)

    def _picture(self, key: str, trigger: Trigger, rng: np.random.Generator) -> str:
        png = io.BytesIO()
        trigger.apply(self.source.image(key), rng).save(png, "PNG")
        content = png.getvalue()
        sha256 = hashlib.sha256(content).hexdigest()
        if not (self.source.pool / sha256).exists():
            write_atomically(self.source.pool / sha256, content)
        return sha256

    def _name(self, old: str, sha256: str) -> str:
        """A member name of its own: another sample may show the old picture unmarked."""
        folder = PurePosixPath(self.source.records_member).parent
        name = str(folder / PurePosixPath(old).with_name(f"{sha256[:24]}.png"))
        self.members[name] = sha256
        return name


def _twisted(turn: Turn, target: Target, rng: np.random.Generator) -> Turn:
    if turn.role == "human" or not target.applies(turn.text):
        return turn
    return Turn("gpt", target.respond(turn.text, rng))


def _with_turns(sample: Sample, turns: Sequence[Turn]) -> Sample:
    record = plain_copy(sample.record)
    for entry, turn in zip(record["conversations"], turns, strict=True):
        entry["value"] = turn.text
    return replace(sample, turns=tuple(turns), record=record)
