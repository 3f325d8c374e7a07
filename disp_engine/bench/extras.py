"""What some tables measure besides the rates of a report."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from disp_engine.attacks.marking import Parts, mark_all
from disp_engine.attacks.sets import AttackSets
from disp_engine.attacks.settings import AttackSettings
from disp_engine.builtin.instructions import Task, ask, describe
from disp_engine.builtin.world import Scene
from disp_engine.data.world import Draw, draw_world
from disp_engine.defences.defence import Defence
from disp_engine.interfaces import Generation
from disp_engine.metrics.cider import cider
from disp_engine.metrics.evaluation import Answer, clean_performance
from disp_engine.metrics.modality import COALITIONS, Coalition, attribute, cosine_values
from disp_engine.metrics.success import ContainsAny
from disp_engine.training.examples import FeatureCache

PARTS: Mapping[Coalition, Parts] = {
    "none": (),
    "image": ("picture",),
    "text": ("text",),
    "both": ("picture", "text"),
}
QUESTIONS: Mapping[str, str] = {
    "objects": "What is at",
    "colours": "What color",
    "grounds": "What is the background",
    "counts": "How many",
}
"""Kinds of questions in the built-in world, by how they begin."""
KINDS_SEED = 77


def caption_quality(
    defence: Defence[Any], cache: FeatureCache, generation: Generation
) -> float | None:
    """CIDEr-D of the answers to clean items; None where too few were answered."""
    if defence.sets.clean is None:
        return None
    inputs = defence.inputs(sets=defence.sets.sha256, generation=asdict(generation))
    with defence.stage("evaluate_after", inputs, kind="evaluate") as stage:
        answers = defence.evaluator(cache, generation).answers(defence.sets.clean, stage, "clean")
    said = [(a.response, a.reference) for a in answers if a.response is not None]
    if len(said) < 2:
        return None
    return cider([response for response, _ in said], [[reference] for _, reference in said])


def by_modality(
    defence: Defence[Any],
    cache: FeatureCache,
    generation: Generation,
    settings: AttackSettings,
    sets: AttackSets,
) -> dict[str, Any]:
    """TMA and CTI of the model as it now is, from runs with each part of a dual trigger.

    The ASR form is derived; so is the cosine form here, whose embeddings are counts of words and
    not CLIP's. Items that fail in one run are left out of all four.
    """
    attack = settings.build()
    runs: dict[Coalition, dict[str, Answer]] = {}
    for name in COALITIONS:
        marked = mark_all(sets.clean, attack, defence.seed + 1, PARTS[name])
        inputs = defence.inputs(data=marked.sha256, generation=asdict(generation))
        with defence.stage("evaluate_after", inputs, kind="modality") as stage:
            answers = defence.evaluator(cache, generation).answers(marked, stage, name)
            stage.finish()
        runs[name] = {a.id: a for a in answers if a.response and a.response.strip()}
    items = [s for s in sets.clean.samples if all(s.id in run for run in runs.values())]
    if not items:
        return {"items": 0}
    success = ContainsAny(attack.target.phrases)
    said = {name: [str(runs[name][s.id].response) for s in items] for name in COALITIONS}
    asr = {name: np.array([float(success(t)) for t in texts]) for name, texts in said.items()}
    rng = np.random.default_rng(defence.seed)
    wanted = [attack.target.respond(s.turns[1].text, rng) for s in items]
    cosines = _word_cosines(said, wanted, [s.turns[1].text for s in items])
    return {
        "asr": attribute(asr, form="asr", seed=defence.seed).to_json(),
        "cosine": attribute(cosines, form="cosine", seed=defence.seed).to_json(),
        "items": len(items),
    }


def by_kind(
    defence: Defence[Any], cache: FeatureCache, generation: Generation, pool: Path, items: int
) -> dict[str, Any]:
    """Clean performance of the model as it now is, by kind of question of the built-in world."""
    kinds: dict[str, Draw] = {"captions": describe}
    kinds |= {name: _asking(start) for name, start in QUESTIONS.items()}
    found = {}
    for name, draw in kinds.items():
        rng = np.random.default_rng(KINDS_SEED)
        dataset = draw_world(name, items, rng, pool, draw=draw)
        inputs = defence.inputs(data=dataset.sha256, generation=asdict(generation))
        with defence.stage("evaluate_after", inputs, kind="kinds") as stage:
            answers = defence.evaluator(cache, generation).answers(dataset, stage, name)
            stage.finish()
        found[name] = clean_performance(answers).to_json()
    return found


def _asking(start: str) -> Draw:
    def draw(scene: Scene, rng: np.random.Generator) -> Task:
        while True:
            task = ask(scene, rng)
            if task.prompt.startswith(start):
                return task

    return draw


def _word_cosines(
    said: Mapping[Coalition, list[str]], wanted: list[str], clean: list[str]
) -> dict[Coalition, np.ndarray]:
    from sklearn.feature_extraction.text import HashingVectorizer

    words = HashingVectorizer(n_features=4096, norm=None, alternate_sign=False,
                              token_pattern=r"\S+")  # fmt: skip  # noqa: S106  of words
    counts = {name: words.transform(texts).toarray() for name, texts in said.items()}
    return cosine_values(
        counts, words.transform(wanted).toarray(), words.transform(clean).toarray()
    )
