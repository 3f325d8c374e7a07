"""Targets: what the attacker wants said; one file each."""
