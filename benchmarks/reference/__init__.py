"""The yardstick: the official loops and Algorithm 1, written literally.

One sample at a time, logits of every row, float64 wherever the authors' code has it, and m forward
and backward passes for m probes. Nothing of the engine computes here: what it must give and how
long a literal reading takes are both measured against these functions. Letters: L positions,
D width, V vocabulary, T response rows, K kept logits, m probes.
"""
