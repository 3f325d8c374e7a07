"""Signatures of reports by the key of the deployment."""
