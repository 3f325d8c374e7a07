"""Which score finds redundant triggers: `python -m benchmarks.redundancy --out DIR`.

Each case is a compromised model: the built-in checkpoint tuned on a poisoned world (`four_corners`:
any one of four patches suffices), or its base projector with the word that orders the insertion
`planted` over some visual tokens, which needs no tuning. Every score masks the same share of the
tokens at inference; those by curvature take the same number of backward passes. Told are the share
of the trigger's tokens that were masked, how often all were, the attack's success under the mask,
and exact match on clean items under theirs; `seconds` is the time of scoring all of them. Tuned
projectors below DIR are found again, also those of `disp bench` (`--out` is then its `--work`);
`--json FILE` writes the rows.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from client.commands.method import read_options
from disp_engine import registry
from disp_engine.attacks.interfaces import PatchTrigger
from disp_engine.attacks.sets import AttackSets, of_world
from disp_engine.attacks.settings import Attack, AttackSettings
from disp_engine.bench.detection import shares_of, touched
from disp_engine.builtin.instructions import FOREIGN_WORDS
from disp_engine.context import SilentContext
from disp_engine.data.dataset import Dataset
from disp_engine.defences.settings import DispSettings
from disp_engine.defences.undefended import Undefended
from disp_engine.interfaces import DiffusionModel, Generation
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.rate import Rate
from disp_engine.metrics.success import ContainsAny
from disp_engine.models.llava.model import LlavaModel
from disp_engine.records import Embedded
from disp_engine.saliency.estimator import SaliencySettings, estimate_saliency
from disp_engine.saliency.masking import most_salient
from disp_engine.saliency.scores import SCORES
from disp_engine.training.examples import FeatureCache, prepare
from disp_engine.training.projector import restore, snapshot

PLANTED = "planted_"
CASES = ("four_corners", "black_patch", "noise_patch", "blended", "planted_4", "planted_1")
RATIOS = (0.0, 0.07, 0.15, 0.3)
INSERTION = AttackSettings(target="content_insertion")
BATCH = 25


@dataclass(frozen=True)
class Case:
    """A compromised model's prompts with and without the trigger.

    `marked` [Lv] are the trigger's tokens, None where it covers the picture; `references` are the
    true answers to the clean prompts.
    """

    triggered: Sequence[Embedded]
    clean: Sequence[Embedded]
    references: Sequence[str]
    marked: Bool[Tensor, " Lv"] | None
    generation: Generation


@dataclass(frozen=True)
class Comparison:
    """Scores side by side on one checkpoint with one setting for all cases."""

    model: DiffusionModel
    settings: DispSettings
    out: Path
    samples: int
    test: int
    seed: int = 0

    def rows(self, names: Sequence[str], ratios: Sequence[float]) -> list[dict[str, Any]]:
        """One row for each case, score and mask ratio."""
        base, found = snapshot(self.model), []
        for name in names:
            restore(self.model, base)
            planted = name.startswith(PLANTED)
            case = self._planted(int(name.removeprefix(PLANTED))) if planted else self._tuned(name)
            for score in SCORES:
                for row in self._scored(case, replace(self.settings, score=score), ratios):
                    found.append({"case": name, "score": score} | row)
                    print(json.dumps(found[-1]), flush=True)
        return found

    def _scored(
        self, case: Case, settings: DispSettings, ratios: Sequence[float]
    ) -> list[dict[str, Any]]:
        saliency = settings.saliency(case.generation, self.seed)
        started = time.perf_counter()
        scores = {
            name: self._scores(prompts, saliency)
            for name, prompts in (("triggered", case.triggered), ("clean", case.clean))
        }
        seconds = time.perf_counter() - started
        success = ContainsAny(INSERTION.build().target.phrases)
        rows = []
        for ratio in ratios:
            masks = {name: [most_salient(s, ratio) for s in each] for name, each in scores.items()}
            attacked = self._answers(case.triggered, masks["triggered"], case.generation)
            right = [
                said == wanted
                for said, wanted in zip(
                    self._answers(case.clean, masks["clean"], case.generation),
                    case.references,
                    strict=True,
                )
            ]
            rows.append(
                {"mask_ratio": ratio, "masked": int(masks["clean"][0].sum())}
                | found_tokens(masks["triggered"], case.marked)
                | {
                    "asr_with_trigger": Rate(sum(map(success, attacked)), len(attacked)).to_json(),
                    "clean_performance": Rate(sum(right), len(right)).to_json(),
                    "backward_passes": 0 if saliency.score == "sufficiency" else saliency.probes,
                    "seconds": round(seconds, 3),
                }
            )
        return rows

    def _scores(self, prompts: Sequence[Embedded], settings: SaliencySettings) -> list[Tensor]:
        cuts = range(0, len(prompts), BATCH)
        batches = [prompts[start : start + BATCH] for start in cuts]
        return [
            s.scores for batch in batches for s in estimate_saliency(self.model, batch, settings)
        ]

    def _answers(
        self, prompts: Sequence[Embedded], masks: Sequence[Tensor], generation: Generation
    ) -> list[str]:
        shown = [self.model.hide(p, mask) for p, mask in zip(prompts, masks, strict=True)]
        said: list[str] = []
        for start in range(0, len(shown), BATCH):
            answers = self.model.denoise(shown[start : start + BATCH], generation)
            said += [self.model.text(answer).strip() for answer in answers]
        return said

    def _tuned(self, trigger: str) -> Case:
        attack = replace(INSERTION, trigger=trigger).build()
        sets = self._sets(attack)
        evaluation = EvaluationSets(sets.triggered, sets.clean)
        defence = Undefended(
            self.model, sets.training, evaluation, self.settings, self.seed, self.out,
            SilentContext(),
        )  # fmt: skip
        cache, prepared = defence.prepare()
        defence.compromise(cache, prepared)
        triggered, clean = (self._prompts(d, cache) for d in (sets.triggered, sets.clean))
        marked = self._marked(attack, sets.triggered, cache)
        generation = defence.generation(prepared)
        return Case(triggered, clean, _references(sets.clean), marked, generation)

    def _planted(self, copies: int) -> Case:
        """The word that orders the insertion, over `copies` tokens spread over the picture."""
        dataset = self._sets(INSERTION.build()).clean
        cache = FeatureCache(self.model, self.out, SilentContext())
        clean = self._prompts(dataset, cache)
        tokens = int(clean[0].visual().sum())
        marked = torch.zeros(tokens, dtype=torch.bool)
        marked[torch.linspace(0, tokens - 2, copies).round().long()] = True
        word = self._word(FOREIGN_WORDS[0].strip("<>"))
        answers = [self.model.tokenise_response(text) for text in _references(dataset)]
        generation = self.settings.generation([len(answer) + 1 for answer in answers])
        planted = [plant(prompt, marked, word) for prompt in clean]
        return Case(planted, clean, _references(dataset), marked, generation)

    def _sets(self, attack: Attack) -> AttackSets:
        pool = self.out / "pool"
        return of_world(attack, samples=self.samples, test=self.test, seed=self.seed, pool=pool)

    @torch.no_grad()
    def _prompts(self, dataset: Dataset, cache: FeatureCache) -> list[Embedded]:
        prepare(dataset, self.model, cache)
        return [
            self.model.embed(self.model.tokenise_prompt(s.turns[:1]), cache.of(s, s.turns[:1]))
            for s in dataset.samples
        ]

    @torch.no_grad()
    def _word(self, text: str) -> Tensor:
        (embedding,) = _llava(self.model).token_embeddings(self.model.tokenise_response(text))
        return embedding

    def _marked(self, attack: Attack, triggered: Dataset, cache: FeatureCache) -> Tensor | None:
        """The tokens of whose part of the picture the trigger covers enough."""
        if not isinstance(attack.picture, PatchTrigger):
            return None
        sample = triggered.samples[0]
        (picture,) = cache.of(sample, sample.turns[:1])
        places = _llava(self.model).places(picture)
        boxes = attack.picture.boxes(picture.size, np.random.default_rng(self.seed))
        return torch.stack([touched(shares_of(box, picture.size), places) for box in boxes]).any(0)


def plant(prompt: Embedded, marked: Bool[Tensor, " Lv"], word: Tensor) -> Embedded:
    """The prompt with a word's embedding in place of the marked visual tokens."""
    embeddings = prompt.embeddings.clone()
    embeddings[prompt.visual().nonzero()[:, 0][marked]] = word
    return replace(prompt, embeddings=embeddings)


def found_tokens(
    masks: Sequence[Bool[Tensor, " Lv"]], marked: Bool[Tensor, " Lv"] | None
) -> dict[str, Any]:
    """The mean share of the trigger's tokens that are masked, and how often all of them are."""
    if marked is None:
        return {"trigger_tokens": None, "trigger_masked": None, "trigger_masked_whole": None}
    hits = [int((mask & marked).sum()) for mask in masks]
    size = int(marked.sum())
    return {
        "trigger_tokens": size,
        "trigger_masked": sum(hits) / (len(hits) * size),
        "trigger_masked_whole": Rate(sum(hit == size for hit in hits), len(hits)).to_json(),
    }


def _references(dataset: Dataset) -> list[str]:
    return [sample.turns[1].text for sample in dataset.samples]


def _llava(model: DiffusionModel) -> LlavaModel:
    if not isinstance(model, LlavaModel):
        raise SystemExit("the comparison is of LLaVA's shape of models")
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redundancy", description=__doc__)
    parser.add_argument("--model", type=Path, default=registry.BUILTIN / "disp-tiny-llada-v")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, dest="file")
    parser.add_argument("--case", action="append", dest="cases", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--ratio", action="append", dest="ratios", type=float)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--setting", action="append", help="NAME=VALUE, of the first tuning")
    given = parser.parse_args(arguments)
    told = read_options(given.setting)
    settings = DispSettings.resolve(registry.card_defaults(given.model), told)
    comparison = Comparison(
        registry.load_model(given.model), settings, given.out, given.samples, given.test
    )
    rows = comparison.rows(given.cases or CASES, given.ratios or RATIOS)
    if given.file:
        given.file.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
