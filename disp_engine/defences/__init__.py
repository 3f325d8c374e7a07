"""Defences: one file each, named after the technique."""
