"""What the autoregressive families share: transformers' own modules, read and said by us.

The families' folders hold their pictures, their chat format and the facts of their checkpoints.
"""
