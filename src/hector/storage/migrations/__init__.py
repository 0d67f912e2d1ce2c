"""Alembic's history of the schema; `hector.storage.migrate` runs it."""
