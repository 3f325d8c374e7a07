"""Triggers: one file each, seeded where random."""
