"""Which visual tokens drive the first prediction: the Fisher–Jacobian quadratic form.

Notation (DiSP, arXiv 2602.22246, section 3.3): T rows of the first response block, all masked;
K the logits kept at each row; p their softmax; F = diag(p) - pp^T per row (Eq. 3); J_i the
Jacobian of the kept logits in the embedding of visual token i; m probes q ~ N(0, F).
"""
