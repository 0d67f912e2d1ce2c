"""Alembic's history of the schema; `hector.storage.migrate` runs it.

A revision after the first makes one change, under a condition of `guards`, or updates rows in a way that may
be repeated: it may be broken off anywhere. Processes of the release before run while it is made, and after.
"""
