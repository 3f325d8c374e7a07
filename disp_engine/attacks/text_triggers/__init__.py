"""Triggers in the question: one file each. Masking pictures cannot remove them."""
