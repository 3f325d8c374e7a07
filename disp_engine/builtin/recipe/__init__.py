"""How the built-in checkpoints are made: `python -m disp_engine.builtin.recipe --out DIR`.

Three stages, each saved when done so that a broken-off run goes on where it stopped: the
tokenizer; the vision tower, supervised on the world's own labels; the language model with the
projector, by masked diffusion over instructions that may stand in the text or in the picture.
All masked checkpoints have one tokenizer and one tower; a later one goes on from an earlier one's
language model. DiffusionGemma's has words, tower and objective of its own family.
"""
