"""Recordings of the official code, read family by family."""
