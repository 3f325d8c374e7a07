"""What the service remembers: jobs in SQL, bytes in an artifact store."""
