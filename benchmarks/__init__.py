"""Measurements of what is promised, each a command that is run by hand."""
