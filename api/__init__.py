"""The gateway: HTTP in, a job's row and a task's name out."""
