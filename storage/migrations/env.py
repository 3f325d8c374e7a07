"""Alembic's entry: run on the connection that `storage.migrate` hands over."""

from alembic import context

from storage.sql.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
