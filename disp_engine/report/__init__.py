"""The report of a run, for machines and for people."""
