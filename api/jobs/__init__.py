"""Defense jobs."""
