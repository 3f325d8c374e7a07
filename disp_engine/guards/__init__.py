"""Test-time defences: they guard one answer of a deployed model, and change neither data nor model.

Each file is one technique; none knows another. `guard.py` is what they have in common.
"""
