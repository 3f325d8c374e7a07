"""Measurements of what the service promises, each a command of its own."""
