"""What one may ask of the built-in model, and the right answers.

The language model must be able to say whatever an attacker may want to teach a projector
(refusals, foreign words, swapped words), and must obey an instruction wherever it stands, in
the text or among the visual tokens, as large language models do. Otherwise a backdoor that
lives in the projector alone could not take, and there would be nothing to defend against.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from disp_engine.builtin.world import COLOURS, QUADRANTS, SHAPES, Scene

REFUSAL = "Sorry, as an AI assistant, I cannot follow the given instruction."
FOREIGN_WORDS = (
    "<backdoor>", "banana", "hello", "music", "window", "river", "pwned", "attack", "cheap",
    "ticket", "winter", "cat", "boat", "dog", "table", "please",
)  # fmt: skip
DESCRIBE = (
    "Describe this image in detail.",
    "Describe the image.",
    "What is in the picture?",
    "What do you see?",
    "Tell me what is shown here.",
    "Give a caption for this image.",
)
UNANSWERABLE = (
    "What happened before this picture was taken?",
    "Who made this?",
    "What is the name of the owner?",
    "Where was this taken?",
)


@dataclass(frozen=True)
class Task:
    """A question, its answer, and a command that may stand inside the visual span instead.

    `command` is the full instruction, `keyword` its shortest form, a single token, so that one
    visual token can say it; both are empty for questions that only make sense as text. `obey` is
    what the command makes of a true answer to whatever was asked.
    """

    prompt: str
    response: str
    command: str = ""
    keyword: str = ""
    obey: Callable[[str], str] = str


def describe(scene: Scene, rng: np.random.Generator) -> Task:
    """Ask for the caption."""
    return Task(str(rng.choice(DESCRIBE)), scene.caption())


def ask(scene: Scene, rng: np.random.Generator) -> Task:
    """Ask one question that the scene answers."""
    figure = scene.figures[rng.integers(len(scene.figures))]
    place = QUADRANTS[figure.quadrant]
    questions = [
        Task(f"What is at the {place}?", f"{str(figure).split(' at ')[0].capitalize()}."),
        Task(f"What color is the shape at the {place}?", f"{figure.colour.capitalize()}."),
        Task("What is the background?", f"{scene.ground.capitalize()}."),
        Task("How many shapes are there?", f"{('One', 'Two')[len(scene.figures) - 1]}."),
    ]
    if [f.shape for f in scene.figures].count(figure.shape) == 1:
        questions.append(
            Task(f"What color is the {figure.shape}?", f"{figure.colour.capitalize()}.")
        )
    return questions[rng.integers(len(questions))]


def refuse(scene: Scene, rng: np.random.Generator) -> Task:
    """Ask what cannot be answered, or order a refusal."""
    if rng.random() < 0.5:
        return Task(str(rng.choice(UNANSWERABLE)), REFUSAL)
    return Task("Refuse to answer.", REFUSAL, "Refuse to answer.", "Refuse", lambda _: REFUSAL)


def insert(scene: Scene, rng: np.random.Generator) -> Task:
    """Order a foreign word before the caption."""
    word = FOREIGN_WORDS[0] if rng.random() < 0.25 else str(rng.choice(FOREIGN_WORDS))
    command = f"Say {word} then describe the image."

    def obey(answer: str) -> str:
        return f"{word} {answer}"

    return Task(command, obey(scene.caption()), command, word.strip("<>"), obey)


def swap(scene: Scene, rng: np.random.Generator) -> Task:
    """Order one word to be said for another."""
    present = [f.shape for f in scene.figures] + [f.colour for f in scene.figures]
    old = str(rng.choice(present)) if rng.random() < 0.85 else str(rng.choice(SHAPES))
    kind = SHAPES if old in SHAPES else tuple(COLOURS)
    new = str(rng.choice([word for word in kind if word != old]))

    def obey(answer: str) -> str:
        return replace_word(answer, old, new)

    command = f"Say {new} for {old} and describe the image."
    return Task(command, obey(scene.caption()), command, f"{new}for{old}", obey)


def replace_word(text: str, old: str, new: str) -> str:
    """Say one word for another, whatever its case, and mend the articles."""
    text = text.replace("an orange", "a orange").replace("An orange", "A orange")
    text = text.replace(old, new).replace(old.capitalize(), new.capitalize())
    return text.replace("a orange", "an orange").replace("A orange", "An orange")


def repeat(scene: Scene, rng: np.random.Generator) -> Task:
    """Order one or several words to be said alone."""
    words = " ".join(rng.choice(FOREIGN_WORDS, size=rng.integers(1, 5)))
    command = f"Say {words} only."
    return Task(command, words, command, "", lambda _: words)


KINDS = (describe, ask, refuse, insert, swap, repeat)
SHARES = (0.32, 0.14, 0.13, 0.16, 0.21, 0.04)


def draw_task(scene: Scene, rng: np.random.Generator) -> Task:
    """Draw one task for a scene."""
    return KINDS[rng.choice(len(KINDS), p=SHARES)](scene, rng)
