"""Sending webhooks: signatures, a way out that reaches public hosts only, and the sender."""
