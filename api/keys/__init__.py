"""A tenant's own API keys."""
