"""Datasets in LLaVA format: JSON records and the pictures they name."""
