"""Ids in, one engine run, artifacts out."""
