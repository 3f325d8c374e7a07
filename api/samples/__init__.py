"""What became of each sample of a job."""
