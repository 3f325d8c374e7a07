"""Finds poisoned samples without knowing trigger, target or rate, and without clean data.

Notation: S samples; each detector takes M numbers of a sample from the compromised model and makes
one score of them, in view of all samples. A higher score is more suspicious.
"""
