"""Fine-tuning of the projector, resumable to the step."""
