"""The schema's history; `storage.migrate.upgrade` runs it."""
