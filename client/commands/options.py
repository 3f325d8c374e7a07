"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[str | None, typer.Option(help="The service's URL (DISP_URL).")]
ApiKey = Annotated[str | None, typer.Option(help="The API key (DISP_API_KEY).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed and input, same output.")]
Phrases = Annotated[
    list[str] | None,
    typer.Option("--phrase", help="An attack succeeded if a response holds it; repeatable."),
]
MaskRatio = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Share of masked tokens.")]
Masking = Annotated[str | None, typer.Option(help="saliency, random or none.")]
Epochs = Annotated[float | None, typer.Option(min=0.0, help="Epochs of the first fine-tuning.")]
MethodType = Annotated[str, typer.Option(help="disp, random_drop, pruning, bye, ...")]
Sidecar = Annotated[
    Path | None, typer.Option(exists=True, help="A poisoning's sidecar, for oracles.")
]
Preset = Annotated[
    str | None, typer.Option(help="The paper's phrases: refusal, insertion, misclassification.")
]
Options = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE in place of a default; repeatable.")
]
Stages = Annotated[
    list[str] | None,
    typer.Option("--stage", help="detect, purify, retrain, evaluate; repeatable [all four]."),
]
Artifacts = Annotated[
    list[str] | None,
    typer.Option("--artifact", help="merged_checkpoint: the whole folder, purified; repeatable."),
]
